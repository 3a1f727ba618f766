/* SPDX-License-Identifier: BSD-2-Clause */
/* A queue of blocks beside a plain array: the same numbers in the same order. */
#include "frontswap/pager/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIDDLE 2000000u

/* at[MIDDLE ± ...]: both ends grow. */
struct model {
	uint64_t *at, first, end;
};

static uint64_t rng = 1;

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

static bool keeps(void *divisor, uint64_t v)
{
	return v % *(uint64_t *)divisor != 0;
}

static void model_filter(struct model *m, uint64_t divisor)
{
	uint64_t n = m->first;

	for (uint64_t i = m->first; i < m->end; i++)
		if (keeps(&divisor, m->at[i]))
			m->at[n++] = m->at[i];
	m->end = n;
}

static void pop_one(struct queue *q, struct model *m)
{
	uint64_t v = 0;
	bool some = m->first < m->end;

	assert_int_equal(queue_pop(q, &v), some);
	if (some)
		assert_int_equal(v, m->at[m->first++]);
}

static void test_like_an_array(void **state)
{
	struct model m = {calloc(2 * (size_t)MIDDLE, sizeof(uint64_t)), MIDDLE, MIDDLE};
	struct queue q = {NULL};

	(void)state;
	assert_non_null(m.at);
	for (unsigned turn = 0; turn < 2000; turn++) {
		/* Up to a few blocks of one kind in a turn: ends of blocks are met. */
		unsigned n = (unsigned)rnd(rnd(4) ? 40 : 3 * QUEUE_BLOCK), kind = (unsigned)rnd(8);
		uint64_t divisor = rnd(3) + 1; /* 1: all go */

		for (unsigned i = 0; i < n; i++) {
			uint64_t v = rnd(UINT64_MAX);

			if (kind < 3) {
				m.at[m.end++] = v;
				assert_true(queue_push(&q, v));
			} else if (kind < 4) {
				m.at[--m.first] = v;
				assert_true(queue_push_front(&q, v));
			} else if (kind < 7) {
				pop_one(&q, &m);
			}
		}
		if (kind == 7 && rnd(4) == 0) {
			divisor += divisor > 1 ? rnd(5) : 0;
			queue_filter(&q, keeps, &divisor);
			model_filter(&m, divisor);
		}
		assert_int_equal(q.count, m.end - m.first);
		assert_int_equal(queue_verify(&q), 0);
	}
	while (q.count)
		pop_one(&q, &m);
	pop_one(&q, &m);
	queue_free(&q);
	free(m.at);
}

static void test_free_is_empty(void **state)
{
	struct queue q = {NULL};
	uint64_t v;

	(void)state;
	for (uint64_t i = 0; i < 5 * QUEUE_BLOCK; i++)
		assert_true(queue_push(&q, i));
	assert_true(queue_pop(&q, &v));
	queue_free(&q);
	assert_int_equal(queue_verify(&q), 0);
	assert_false(queue_pop(&q, &v));
	assert_true(queue_push_front(&q, 7));
	assert_true(queue_pop(&q, &v) && v == 7);
	queue_free(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_like_an_array),
		cmocka_unit_test(test_free_is_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
