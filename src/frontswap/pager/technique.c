/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What makes paging fast, by name, so that each can be left out and what it brings be
 * measured: tmem run --without. None of them changes what a program sees.
 */
#include "frontswap/pager/run.h"

#include <errno.h>
#include <string.h>

static const struct {
	const char *name;
	enum technique bit;
} techniques[] = {
	{"ahead", EVICT_AHEAD},	     {"apart", STORED_APART},	  {"batch", BATCHES},
	{"chance", SECOND_CHANCE},   {"company", COMPANY_LEAVES}, {"fill", FILL_AROUND},
	{"follow", FOLLOW_FAULTS},   {"idle", IDLE_PAGES},	  {"keep", KEEP_COPIES},
	{"learn", LEARN_NEIGHBOURS}, {"main", MAIN_QUEUE},	  {"read-ahead", READ_AHEAD},
};

int technique_parse(const char *names, uint32_t *bits)
{
	size_t n, i;

	*bits = 0;
	for (const char *at = names; at && *at; at += n + (at[n] == ',')) {
		n = strcspn(at, ",");
		for (i = 0; i < sizeof(techniques) / sizeof(techniques[0]); i++)
			if (strlen(techniques[i].name) == n && !strncmp(at, techniques[i].name, n))
				break;
		if (i == sizeof(techniques) / sizeof(techniques[0]))
			return -EINVAL;
		*bits |= techniques[i].bit;
	}
	return 0;
}
