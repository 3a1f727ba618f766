/* SPDX-License-Identifier: BSD-2-Clause */
/* Trace files: what goes in comes out, damage is refused with its place, a host is recorded. */
#include "tmem_test.h"

#include "trace/format.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64];

static int make_path(void **state)
{
	snprintf(path, sizeof(path), "/tmp/tmem-trace-XXXXXX");
	close(mkstemp(path));
	return 0;
}

static int remove_path(void **state)
{
	unlink(path);
	return 0;
}

/* ---- the format ------------------------------------------------------------ */

#define N_OPS 20000u

/* The i-th of a fixed sequence with everything that can differ, now small, now extreme. */
static struct trace_op made_op(uint64_t i)
{
	uint64_t r = test_mix(i);
	struct trace_op op = {.time_ns = 1000000 + i * 37, .op = (enum trace_opcode)(1 + r % 12)};

	op.ok = r >> 8 & 1;
	op.client = r >> 9 & 7 ? 0 : UINT32_MAX;
	op.pool = r >> 12 & 7 ? 3 : INT32_MAX;
	for (unsigned k = 0; k < 3; k++)
		op.oid[k] = r >> 15 & 3 ? k : test_mix(i + k);
	op.index = r >> 17 & 3 ? i : r >> 19 & 1 ? UINT64_MAX - i : test_mix(i + 9);
	op.n = r >> 20 & 7 ? 1 : r >> 23 & 1 ? UINT64_MAX : r % 64;
	if (op.op == TRACE_PUT)
		op.zsize = r >> 24 & 3 ? r % 4096 : UINT32_MAX;
	if (op.op == TRACE_READ && op.n <= TRACE_SIZES_MAX && r >> 26 & 1) {
		op.nsizes = (unsigned)op.n;
		for (unsigned k = 0; k < op.nsizes; k++)
			op.size[k] = (uint16_t)(test_mix(i * 64 + k) % 4097);
	}
	return op;
}

static void assert_same(const struct trace_op *a, const struct trace_op *b)
{
	assert_true(a->time_ns == b->time_ns && a->op == b->op && a->ok == b->ok);
	assert_true(a->client == b->client && a->pool == b->pool);
	assert_memory_equal(a->oid, b->oid, sizeof(a->oid));
	assert_true(a->index == b->index && a->n == b->n && a->zsize == b->zsize);
	assert_int_equal(a->nsizes, b->nsizes);
	assert_memory_equal(a->size, b->size, a->nsizes * sizeof(a->size[0]));
}

/* A file of N_OPS records; its size. */
static size_t write_file(bool end)
{
	static struct trace_block b;
	uint8_t head[TRACE_HEAD_BYTES];
	FILE *f = fopen(path, "w");
	size_t n, size;

	trace_head(head);
	fwrite(head, 1, sizeof(head), f);
	trace_block_reset(&b);
	for (uint64_t i = 0; i < N_OPS; i++) {
		struct trace_op op = made_op(i);

		if (!trace_block_add(&b, &op)) {
			n = trace_block_close(&b, 0);
			fwrite(b.bytes, 1, n, f);
			trace_block_reset(&b);
			assert_true(trace_block_add(&b, &op));
		}
	}
	n = trace_block_close(&b, 5);
	fwrite(b.bytes, 1, n, f);
	if (end) {
		n = trace_block_end(&b, N_OPS, 5);
		fwrite(b.bytes, 1, n, f);
	}
	size = (size_t)ftell(f);
	fclose(f);
	return size;
}

/* Reads all of it; what the last call said. */
static int read_file(struct trace_reader *r, bool compare)
{
	int fd = open(path, O_RDONLY), rc = trace_reader_start(r, fd);
	struct trace_op op, want;

	while (rc >= 0 && (rc = trace_reader_next(r, &op)) == 1)
		if (compare) {
			want = made_op(r->records - 1);
			assert_same(&op, &want);
		}
	close(fd);
	return rc;
}

static void what_goes_in_comes_out(void **state)
{
	static struct trace_reader r;
	size_t size = write_file(true);

	assert_int_equal(read_file(&r, true), 0);
	assert_int_equal(r.records, N_OPS);
	assert_true(r.ended && !r.cut);
	assert_int_equal(r.lost, 5);
	assert_int_equal(r.size, size);
}

static void a_cut_file_gives_its_whole_blocks(void **state)
{
	static struct trace_reader r;
	size_t size = write_file(false);
	uint64_t whole = 0;

	assert_int_equal(read_file(&r, true), 0);
	assert_true(r.cut && !r.ended);
	assert_int_equal(r.records, N_OPS);
	/* Wherever it ends, what comes is right, and never more than there was. */
	for (size_t n = size - 1; n > TRACE_HEAD_BYTES; n = n * 3 / 4) {
		assert_int_equal(truncate(path, (off_t)n), 0);
		assert_int_equal(read_file(&r, true), 0);
		assert_true(r.cut && r.records < N_OPS && r.size <= n);
		whole += r.records;
	}
	assert_true(whole > 0);
	assert_int_equal(truncate(path, 10), 0);
	assert_int_equal(read_file(&r, true), -EBADMSG);
}

/* Every block is sound, but one of them is not there. */
static void a_missing_block_is_noticed(void **state)
{
	static struct trace_reader r;
	size_t size = write_file(true), first;
	static uint8_t all[4 << 20];
	FILE *f = fopen(path, "r");
	uint32_t bytes;

	assert_int_equal(fread(all, 1, sizeof(all), f), size);
	fclose(f);
	memcpy(&bytes, all + TRACE_HEAD_BYTES + 8, sizeof(bytes));
	first = TRACE_BLOCK_HEAD + bytes;
	f = fopen(path, "w");
	fwrite(all, 1, TRACE_HEAD_BYTES, f);
	fwrite(all + TRACE_HEAD_BYTES + first, 1, size - TRACE_HEAD_BYTES - first, f);
	fclose(f);
	assert_int_equal(read_file(&r, false), -EBADMSG);
	assert_non_null(strstr(r.err, "missing"));
}

static void any_flipped_bit_is_refused_with_its_place(void **state)
{
	static struct trace_reader r;
	size_t size = write_file(true);
	int fd = open(path, O_RDWR);

	for (unsigned i = 0; i < 400; i++) {
		off_t at = (off_t)(i < 80 ? i : test_mix(i) % size);
		uint8_t byte, bad;

		assert_int_equal(pread(fd, &byte, 1, at), 1);
		bad = byte ^ (uint8_t)(1u << i % 8);
		assert_int_equal(pwrite(fd, &bad, 1, at), 1);
		/* The file may seem cut where a length was hit near the end, but never whole. */
		if (read_file(&r, true) == 0) {
			assert_true(r.cut && !r.ended);
		} else {
			assert_true(r.err[0]);
			assert_true(r.offset <= (uint64_t)at + TRACE_BLOCK_HEAD);
			assert_true(at < 8 || strstr(r.err, "byte") || strstr(r.err, "version"));
		}
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	}
	close(fd);
	assert_int_equal(read_file(&r, true), 0);
	assert_true(r.ended);
}

/* Records that are well-formed blocks of nonsense: bounded, no reading beyond. */
static void sound_checksums_prove_nothing(void **state)
{
	static struct trace_block b;
	static struct trace_reader r;
	uint8_t head[TRACE_HEAD_BYTES];
	unsigned refused = 0;

	for (unsigned i = 0; i < 300; i++) {
		FILE *f = fopen(path, "w");
		size_t n;

		trace_head(head);
		fwrite(head, 1, sizeof(head), f);
		trace_block_reset(&b);
		b.used = i;
		b.records = 1 + i / 3;
		for (unsigned k = 0; k < i; k++)
			b.bytes[TRACE_BLOCK_HEAD + k] = (uint8_t)test_mix(i * 1000 + k);
		n = trace_block_close(&b, 0);
		fwrite(b.bytes, 1, n, f);
		fclose(f);
		refused += read_file(&r, false) == -EBADMSG;
	}
	assert_true(refused > 290);
}

/* ---- the recorder ---------------------------------------------------------- */

static unsigned ops_seen[TRACE_OPCODES];

/* Read back what a host recorded; records in all. */
static uint64_t count_ops(uint64_t zsize_of_puts[1])
{
	static struct trace_reader r;
	struct trace_op op;
	int fd = open(path, O_RDONLY), rc;

	memset(ops_seen, 0, sizeof(ops_seen));
	assert_int_equal(trace_reader_start(&r, fd), 0);
	while ((rc = trace_reader_next(&r, &op)) == 1) {
		ops_seen[op.op]++;
		if (op.op == TRACE_PUT)
			zsize_of_puts[0] += op.zsize;
	}
	assert_int_equal(rc, 0);
	assert_true(r.ended);
	close(fd);
	return r.records;
}

static void a_host_is_recorded(void **state)
{
	struct test_host t = test_open(NULL);
	uint64_t records = 0, lost = 9, zsize = 0, compressed;
	tmem_oid oid = test_oid(1);
	struct test_page page, back;
	tmem_pool pool, copy;

	assert_int_equal(tmem_host_trace_stop(t.host, NULL, NULL), -EINVAL);
	assert_int_equal(tmem_host_trace_start(t.host, "/nowhere/at/all"), -ENOENT);
	assert_int_equal(tmem_host_trace_start(t.host, path), 0);
	assert_int_equal(tmem_host_trace_start(t.host, path), -EBUSY);
	pool = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 4);
	for (uint64_t i = 0; i < 50; i++) {
		test_fill(&page, i, 100);
		assert_int_equal(tmem_put(t.client, pool, &oid, i, &page), 0);
	}
	compressed = test_stats(t.host).compressed_bytes;
	assert_int_equal(tmem_get(t.client, pool, &oid, 1, &back), 0);
	assert_int_equal(tmem_get(t.client, pool, &oid, 99, &back), 1);
	assert_int_equal(tmem_get_and_invalidate(t.client, pool, &oid, 1, &back), 0);
	assert_int_equal(tmem_invalidate_page(t.client, pool, &oid, 2), 1);
	assert_int_equal(tmem_invalidate_range(t.client, pool, &oid, 3, 5), 5);
	copy = tmem_pool_clone(t.client, pool);
	assert_true(copy >= 0);
	assert_int_equal(tmem_invalidate_object(t.client, pool, &oid), 43);
	assert_int_equal(tmem_pool_flush(t.client, copy), 43);
	assert_int_equal(tmem_pool_destroy(t.client, copy), 0);
	assert_int_equal(tmem_host_trace_stop(t.host, &records, &lost), 0);
	assert_int_equal(lost, 0);
	/* What comes after is not in it. */
	assert_int_equal(tmem_get(t.client, pool, &oid, 1, &back), 1);
	assert_int_equal(count_ops(&zsize), records);
	assert_int_equal(zsize, compressed);
	assert_int_equal(ops_seen[TRACE_PUT], 50);
	assert_int_equal(ops_seen[TRACE_GET], 2);
	assert_int_equal(ops_seen[TRACE_GET_AND_DROP], 1);
	assert_int_equal(ops_seen[TRACE_DROP], 2);
	assert_int_equal(ops_seen[TRACE_DROP_OBJECT], 1);
	assert_int_equal(ops_seen[TRACE_FLUSH_POOL], 1);
	assert_int_equal(ops_seen[TRACE_POOL_NEW], 1);
	assert_int_equal(ops_seen[TRACE_POOL_CLONE], 1);
	assert_int_equal(ops_seen[TRACE_POOL_END], 1);
	/* And again, into the same file. */
	assert_int_equal(tmem_host_trace_start(t.host, path), 0);
	assert_int_equal(tmem_get(t.client, pool, &oid, 1, &back), 1);
	assert_int_equal(tmem_host_trace_stop(t.host, &records, &lost), 0);
	assert_int_equal(records, 1);
	assert_int_equal(count_ops(&zsize), 1);
	test_close(&t);
}

#define THREADS 4
#define EACH	30000u

static struct test_host shared;

static void *worker(void *arg)
{
	tmem_oid oid = test_oid((uint64_t)(uintptr_t)arg + 100);
	struct test_page page;

	memset(&page, 0, sizeof(page));
	for (uint64_t i = 0; i < EACH; i++)
		assert_int_equal(tmem_put(shared.client, shared.pool, &oid, i % 512, &page), 0);
	return NULL;
}

/* Several threads, more than a buffer each: all of it arrives, each thread's in its order. */
static void threads_lose_nothing(void **state)
{
	static struct trace_reader r;
	uint64_t next[THREADS] = {0}, records, lost;
	pthread_t thread[THREADS];
	struct trace_op op;
	int fd, rc;

	shared = test_open(NULL);
	assert_int_equal(tmem_host_trace_start(shared.host, path), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, worker, (void *)i), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(tmem_host_trace_stop(shared.host, &records, &lost), 0);
	assert_int_equal(records, THREADS * EACH);
	fd = open(path, O_RDONLY);
	assert_int_equal(trace_reader_start(&r, fd), 0);
	while ((rc = trace_reader_next(&r, &op)) == 1) {
		assert_in_range(op.oid[0], 100, 100 + THREADS - 1);
		assert_int_equal(op.index, next[op.oid[0] - 100]++ % 512);
	}
	assert_int_equal(rc, 0);
	close(fd);
	assert_int_equal(r.records, records);
	assert_true(r.blocks > THREADS);
	test_close(&shared);
}

/* A disk that fills up: what was lost is said, and the file stays whole blocks. */
static void a_full_disk_is_counted(void **state)
{
	struct rlimit old, small;
	uint64_t records, lost, zsize = 0;
	struct test_host t = test_open(NULL);
	struct test_page page;
	tmem_oid oid = test_oid(1);

	assert_int_equal(tmem_host_trace_start(t.host, "/dev/full"), -ENOSPC);
	memset(&page, 0, sizeof(page));
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	small = old;
	small.rlim_cur = 100000;
	assert_int_equal(tmem_host_trace_start(t.host, path), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (uint64_t i = 0; i < 50000; i++)
		assert_int_equal(tmem_put(t.client, t.pool, &oid, i % 64, &page), 0);
	assert_int_equal(tmem_host_trace_stop(t.host, &records, &lost), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_true(lost > 0 && records > 0);
	assert_int_equal(records + lost, 50000);
	assert_int_equal(count_ops(&zsize), records);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_goes_in_comes_out, make_path, remove_path),
		cmocka_unit_test_setup_teardown(a_cut_file_gives_its_whole_blocks, make_path,
						remove_path),
		cmocka_unit_test_setup_teardown(a_missing_block_is_noticed, make_path, remove_path),
		cmocka_unit_test_setup_teardown(any_flipped_bit_is_refused_with_its_place,
						make_path, remove_path),
		cmocka_unit_test_setup_teardown(sound_checksums_prove_nothing, make_path,
						remove_path),
		cmocka_unit_test_setup_teardown(a_host_is_recorded, make_path, remove_path),
		cmocka_unit_test_setup_teardown(threads_lose_nothing, make_path, remove_path),
		cmocka_unit_test_setup_teardown(a_full_disk_is_counted, make_path, remove_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
