/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: restore, on a save file that was changed.
 *
 *   byte 0: bit 0: bytes are the file as they are; else edits of a good file:
 *   position (16 bits), kind, value: kind even: set, odd: xor; kind & 0xf0 == 0xf0: cut
 *   there. Then, unless bit 1 is set, all checksums are made right again, so that
 *   the fields are what is judged.
 *
 * Whatever the file is: a client and a sound store, or an error, no client, and an
 * empty store.
 */
#include "fuzz.h"
#include "os/log.h"
#include "zcache/save.h"

#include <unistd.h>

#define FILE_MAX (128u << 10)

static char path[] = "/tmp/tmem-fuzz-save-XXXXXX";
static uint8_t good[FILE_MAX], file[FILE_MAX];
static size_t good_size;
static tmem_host *host;

static void quiet(void *ctx, enum os_log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	(void)text;
}

/* Written in place: a file that is emptied and written anew may go to the disk each time. */
static void write_file(const void *bytes, size_t n)
{
	FILE *f = fopen(path, "r+");

	fuzz_check(f && fwrite(bytes, 1, n, f) == n && fflush(f) == 0);
	fuzz_check(ftruncate(fileno(f), (off_t)n) == 0);
	fuzz_check(fclose(f) == 0);
}

static void tidy(void)
{
	(void)unlink(path);
}

/* A page alone, a cluster, and a same-filled page. */
static void make_good(void)
{
	static uint64_t pages[4][512];
	tmem_oid oid = {{1, 2, 3}};
	tmem_client *c;
	tmem_pool pool;
	int fd = mkstemp(path);
	FILE *f;

	fuzz_check(fd >= 0);
	close(fd);
	(void)atexit(tidy);
	fuzz_check(tmem_host_create(NULL, &host, NULL, 0) == 0);
	fuzz_check(tmem_client_create(host, "fuzz", &c) == 0);
	pool = tmem_pool_create(c, TMEM_POOL_PERSIST, 1);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned k = 0; k < 512; k++)
			pages[i][k] = k % 16 ? k / 16 + i : k * 0x9e3779b97f4a7c15u * (i + 1);
	fuzz_check(tmem_put(c, pool, &oid, 1, pages[0]) == 0);
	fuzz_check(tmem_put_cluster(c, pool, &oid, 64, 4, pages) == 0);
	memset(pages, 7, 4096);
	fuzz_check(tmem_put(c, pool, &oid, 3, pages[0]) == 0);
	fuzz_check(tmem_client_save(c, path, NULL) == 0);
	tmem_client_destroy(c);
	f = fopen(path, "r");
	fuzz_check(f);
	good_size = fread(good, 1, sizeof(good), f);
	fuzz_check(good_size > 500 && good_size < sizeof(good));
	fclose(f);
	os_log_set_sink(quiet, NULL);
}

static void mend(uint8_t *b, size_t len)
{
	uint32_t whole = 0;
	size_t at = SAVE_HEADER;

	if (len < SAVE_HEADER)
		return;
	save_put32(b + 124, zc_checksum(b, 124));
	while (at + SAVE_RECORD <= len) {
		uint8_t *p = b + at + SAVE_RECORD;
		uint32_t n = save_get32(b + at + 4);

		if (n > len - at - SAVE_RECORD)
			break;
		if (save_get32(b + at) == SAVE_T_END && n == SAVE_END)
			save_put32(p + 24, whole);
		if (save_get32(b + at) == SAVE_T_ZPAGE && n > SAVE_ZPAGE)
			save_put32(p + 52, zc_checksum(p + SAVE_ZPAGE, n - SAVE_ZPAGE));
		save_put32(b + at + 16, zc_checksum(p, n));
		save_put32(b + at + 20, zc_checksum(b + at, 20));
		whole = save_chain(whole, b + at);
		at += SAVE_RECORD + n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	tmem_stats s = {.size = sizeof(s)};
	tmem_save io = TMEM_SAVE;
	tmem_client *c = NULL;
	size_t n;
	uint8_t how;
	int rc;

	if (!host)
		make_good();
	how = fuzz_u8(&in);
	n = good_size;
	memcpy(file, good, n);
	if (how & 1) {
		n = in.n < sizeof(file) ? in.n : sizeof(file);
		memcpy(file, in.p, n);
	}
	for (unsigned i = 0; !(how & 1) && i < 8 && in.n; i++) {
		size_t at = fuzz_u16(&in) % n;
		uint8_t kind = fuzz_u8(&in), value = fuzz_u8(&in);

		file[at] = kind & 1 ? file[at] ^ value : value;
		if ((kind & 0xf0) == 0xf0)
			n = at + 1;
	}
	if (!(how & 2))
		mend(file, n);
	write_file(file, n);
	rc = tmem_client_restore(host, path, &io, &c);
	fuzz_check((rc == 0) == (c != NULL));
	fuzz_check(rc == 0 || io.error[0]);
	fuzz_check(io.offset <= n);
	fuzz_check(tmem_host_verify(host, 1) == 0);
	tmem_client_destroy(c);
	fuzz_check(tmem_host_stats(host, &s) == 0 && s.pages == 0 && s.zpages == 0 &&
		   s.clients == 0);
	return 0;
}
