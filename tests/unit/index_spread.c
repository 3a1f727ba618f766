/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Do the object ids that the frontends really make spread over all shards?
 *
 * The first tmem used 16 of its 256 buckets, because frontswap's ids differed
 * in too few bits. Ids thrown at random over S shards leave the fullest about
 * mean + 3 * sqrt(mean) of them; each family here must be no worse than 5 of
 * those deviations, leave no shard empty, and have a chi-square sum within 6
 * of its own standard deviations. All is deterministic.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "index/internal.h"
#include "index_double.h"

#define SHARDS 256

static struct frames frames;
static struct index *ix;
static struct pam_double pam;

static double square_root(double x)
{
	double r = x > 1 ? x : 1;
	int i;

	for (i = 0; i < 60; i++)
		r = (r + x / r) / 2;
	return r;
}

/* Pearson's sum over the shards' object counts, in deviations from what chance gives. */
static double chi_deviation(struct index_pool *ip, double mean)
{
	double sum = 0;
	unsigned i;

	for (i = 0; i < ip->shards; i++) {
		double d = (double)ip->shard[i].objects - mean;

		sum += d * d / mean;
	}
	return (sum - (ip->shards - 1)) / square_root(2.0 * (ip->shards - 1));
}

/* And the tables' low bits: the longest chain of any shard. */
static unsigned longest_chain(struct index_pool *ip)
{
	unsigned longest = 0, i, b;

	for (i = 0; i < ip->shards; i++) {
		for (b = 0; b <= ip->shard[i].mask; b++) {
			arena_id id = ip->shard[i].heads[b];
			unsigned n = 0;

			for (; id; id = index_object(ix, id)->next)
				n++;
			if (n > longest)
				longest = n;
		}
	}
	return longest;
}

static void measure(const char *name, unsigned n, struct index_oid (*make)(unsigned i))
{
	struct pampd p = {0, true};
	struct index_pool *ip;
	uint64_t fullest, milli;
	double mean, worst, chi;
	unsigned i, empty = 0, chain;

	assert_int_equal(index_pool_create(ix, SHARDS, &pam_double_ops, &pam, NULL, &ip), 0);
	for (i = 0; i < n; i++) {
		struct index_oid oid = make(i);

		assert_int_equal(index_put(ip, &oid, i % 64, 1, &p), 0);
	}
	assert_int_equal(index_pool_pages(ip), n);
	index_pool_spread(ip, &fullest, &milli);
	mean = (double)milli / 1000;
	worst = ((double)fullest - mean) / square_root(mean);
	chi = chi_deviation(ip, mean);
	chain = longest_chain(ip);
	for (i = 0; i < SHARDS; i++)
		empty += !ip->shard[i].objects;
	print_message("%-34s %7u objects, mean %7.1f, fullest %5llu (+%.1f dev), chi %+.1f dev, "
		      "%u empty, longest chain %u\n",
		      name, n, mean, (unsigned long long)fullest, worst, chi, empty, chain);
	assert_true(worst < 5);
	assert_true(chi < 6);
	assert_true(mean < 8 || !empty);
	assert_true(chain <= 14);
	assert_int_equal(index_verify(ip), 0);
	index_pool_destroy(ip);
}

/* frontswap: { address space, virtual page number >> 12, 0 } */
static struct index_oid heap_of_one(unsigned i)
{
	return (struct index_oid){{1, (0x7f0000000000ull >> 24) + i, 0}};
}

static struct index_oid heaps_of_many(unsigned i)
{
	return (struct index_oid){{1 + i % 64, (0x555555554000ull >> 24) + i / 64, 0}};
}

static struct index_oid mappings_2gib_apart(unsigned i)
{
	return (struct index_oid){{7, (uint64_t)i << 7, 0}};
}

static struct index_oid one_object_each(unsigned i)
{
	return (struct index_oid){{i, 0x7fffffffull, 0}};
}

/* cleancache: { device, inode, generation } */
static struct index_oid inodes(unsigned i)
{
	return (struct index_oid){{0xfd01, 131072 + i, 0}};
}

static struct index_oid inodes_generations(unsigned i)
{
	uint32_t generation = i * 2654435761u;

	return (struct index_oid){{0x10302, 2 + i * 8ull, generation}};
}

static struct index_oid devices(unsigned i)
{
	return (struct index_oid){{(i % 16) << 8 | 8, 64 + i / 16, 1}};
}

static struct index_oid inodes_xfs(unsigned i)
{
	/* Inode numbers with the allocation group in the high bits. */
	return (struct index_oid){{0x803, (uint64_t)(i % 32) << 32 | (128 + i / 32), 0x1234567}};
}

/* The original's swizzle: type << 8 | low 8 bits of the offset. */
static struct index_oid swizzled(unsigned i)
{
	return (struct index_oid){{(i / 256) << 8 | (i % 256), 0, 0}};
}

static struct index_oid high_bits(unsigned i)
{
	return (struct index_oid){{0, 0, (uint64_t)i << 44}};
}

static void test_spread(void **state)
{
	frames_init(&frames, 0);
	pam_double_init(&pam, 16);
	assert_int_equal(index_create(&frames, &ix), 0);
	ix->seed = 0x9e3779b97f4a7c15u;
	measure("frontswap, a 16 GiB heap", 1024, heap_of_one);
	measure("frontswap, a 256 GiB heap", 16384, heap_of_one);
	measure("frontswap, 64 heaps", 16384, heaps_of_many);
	measure("frontswap, mappings 2 GiB apart", 16384, mappings_2gib_apart);
	measure("frontswap, a stack in each", 16384, one_object_each);
	measure("frontswap, the original's ids", 16384, swizzled);
	measure("cleancache, consecutive inodes", 100000, inodes);
	measure("cleancache, inodes, generations", 100000, inodes_generations);
	measure("cleancache, 16 devices", 100000, devices);
	measure("cleancache, allocation groups", 100000, inodes_xfs);
	measure("high bits of the last word", 100000, high_bits);
	index_destroy(ix);
	pam_double_fini(&pam);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
