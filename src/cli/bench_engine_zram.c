/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The same pages in zram: what the kernel takes for them, all in. A device of
 * its own is made, written and removed; bench_box.c sees to the removal.
 */
#include "cli/bench_box.h"
#include "cli/bench_engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Sets zram_bytes and zram_compressed, or zram_why. Not having zram is no failure. */
int engine_measure_zram(struct engine *e)
{
	char *why = e->r.zram_why;
	size_t size = sizeof(e->r.zram_why);
	struct zram_use use = {0};
	struct box box;
	int code, closed;

	code = box_open(&box, why, size);
	if (!code)
		code = zram_add(e->spec.codec->name, e->pages.count * ENGINE_PAGE, &box.state->zram,
				why, size);
	if (!code) {
		code = zram_write(box.state->zram, e->pages.data, e->pages.count);
		if (code)
			snprintf(why, size, "cannot write to it: %s", strerror(-code));
	}
	if (!code)
		zram_usage(box.state->zram, &use);
	e->r.zram_bytes = use.used_bytes;
	e->r.zram_compressed = use.compressed_bytes;
	closed = box_close(&box, why, size);
	if (!code && !closed && use.stored_pages != e->pages.count)
		snprintf(why, size, "it holds %llu pages, not all",
			 (unsigned long long)use.stored_pages);
	return closed ? closed : box_stopped() ? -EINTR : 0;
}
