/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem run's books of an address space: pages come and go in every order, and the sums stay true.
 */

#include "run_test.h"

#include "os/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define START 0x10000000ull
#define PAGES 2048u
#define END   (START + PAGES * AGENT_PAGE)

static struct run run;

/* What space.c calls of the pager. */
void pager_fail(struct space *sp, const char *why)
{
	(void)sp;
	fail_msg("%s", why);
}

static struct space *make(void)
{
	struct space *sp = test_space(&run, RUN_EVICT_AUTO, START, PAGES);

	space_mark_resident(sp, space_find(sp, START), START, PAGES, ARRIVAL_FRESH);
	assert_int_equal(space_verify(sp), 0);
	return sp;
}

static void unmake(struct space *sp)
{
	test_space_end(&run, sp);
}

/* n pages from an address on are on their way out in slot i. */
static struct slot *leave_from(struct space *sp, unsigned i, uint64_t addr, uint32_t n)
{
	struct segment *seg = space_find(sp, addr);
	struct slot *sl = &sp->slots[i];

	sl->area = seg->area;
	sl->first = seg->page + (addr - seg->start) / AGENT_PAGE;
	sl->pages = n;
	sl->moved = (1u << n) - 1;
	sl->dropped = 0;
	atomic_store(&sl->state, SLOT_QUEUED);
	for (uint32_t k = 0; k < n; k++)
		space_set_page(space_chunk(sp, sl->area, sl->first + k, false), sl->first + k,
			       PAGE_TRANSIT);
	return sl;
}

/* Pages [first, first + n) of the first mapping. */
static struct slot *leave(struct space *sp, unsigned i, uint64_t first, uint32_t n)
{
	struct slot *sl = leave_from(sp, i, START + first * AGENT_PAGE, n);

	assert_int_equal(space_verify(sp), 0);
	return sl;
}

/* As the pager does it when the worker has stored them. */
static void settle(struct space *sp, struct slot *sl)
{
	for (uint32_t k = 0; k < sl->pages; k++) {
		struct chunk *c = space_chunk(sp, sl->area, sl->first + k, false);

		assert_non_null(c); /* I7: what a slot names keeps its chunk */
		if (sl->dropped >> k & 1)
			space_slot_over(sp, sl->area, sl->first + k);
		else
			space_set_page(c, sl->first + k, PAGE_OUT);
	}
	atomic_store(&sl->state, SLOT_FREE);
}

/* A page that came back from its slot, and whose mapping goes before the slot is over. */
static void test_back_and_unmapped(void **state)
{
	struct space *sp = make();
	struct segment *seg = space_find(sp, START);
	struct slot *sl = leave(sp, 0, 40, 2);

	(void)state;
	for (uint64_t k = 0; k < 2; k++)
		space_back_from_slot(sp, seg, seg->page + 40 + k, sl);
	assert_int_equal(space_verify(sp), 0);
	space_drop_range(sp, START, END, true);
	assert_int_equal(space_verify(sp), 0);
	settle(sp, sl);
	assert_int_equal(space_verify(sp), 0);
	unmake(sp);
}

/* It comes back, and the slot is over: it counts as any other. */
static void test_back_and_over(void **state)
{
	struct space *sp = make();
	struct segment *seg = space_find(sp, START);
	struct slot *sl = leave(sp, 0, 7, 8);

	(void)state;
	space_back_from_slot(sp, seg, seg->page + 9, sl);
	settle(sp, sl);
	assert_int_equal(space_verify(sp), 0);
	assert_int_equal(space_chunk(sp, seg->area, seg->page, false)->out, 7);
	space_drop_range(sp, START, END, true);
	assert_int_equal(space_verify(sp), 0);
	assert_null(space_chunk(sp, 0, START / AGENT_PAGE % CHUNK_PAGES, false));
	unmake(sp);
}

/* Emptied or unmapped in transit: the slot's word is not taken, and no page counts for ever. */
static void test_dropped_in_transit(void **state)
{
	(void)state;
	for (int unmapped = 0; unmapped < 2; unmapped++) {
		struct space *sp = make();
		struct slot *a = leave(sp, 0, 100, 4), *b = leave(sp, 1, 104, 8);

		space_drop_range(sp, START + 102 * AGENT_PAGE, START + 106 * AGENT_PAGE, unmapped);
		assert_int_equal(a->dropped, 0xc);
		assert_int_equal(b->dropped, 0x3);
		assert_int_equal(space_verify(sp), 0);
		settle(sp, a);
		settle(sp, b);
		assert_int_equal(space_verify(sp), 0);
		assert_int_equal(space_chunk(sp, 0, START / AGENT_PAGE % CHUNK_PAGES, false)->out,
				 8);
		unmake(sp);
	}
}

/* A mapping that moves takes its pages' names along, those in transit too. */
static void test_moved_in_transit(void **state)
{
	struct space *sp = make();
	struct slot *sl = leave(sp, 0, 30, 8);
	uint64_t to = START + (1ull << 32);

	(void)state;
	assert_int_equal(space_remap(sp, START + 32 * AGENT_PAGE, to, 4 * AGENT_PAGE), 0);
	assert_int_equal(space_verify(sp), 0);
	assert_int_equal(space_address(sp, sl->area, sl->first + 2), to);
	assert_int_equal(space_address(sp, sl->area, sl->first), START + 30 * AGENT_PAGE);
	assert_null(space_find(sp, START + 33 * AGENT_PAGE));
	settle(sp, sl);
	assert_int_equal(space_verify(sp), 0);
	unmake(sp);
}

/* Books go with the last page of theirs, whatever was unmapped by how many calls. */
static void test_unmapped_in_parts(void **state)
{
	struct space *sp = make();
	uint64_t half = CHUNK_PAGES / 2 * AGENT_PAGE;

	(void)state;
	space_drop_range(sp, START, START + half, true);
	assert_int_equal(space_verify(sp), 0);
	assert_non_null(space_chunk(sp, 0, CHUNK_PAGES / 2, false));
	space_drop_range(sp, START + half, START + 2 * half, true);
	assert_null(sp->areas[0].chunks[0]);
	assert_int_equal(sp->areas[0].live, PAGES / CHUNK_PAGES - 1);
	/* From the middle; a part of it is elsewhere by now. */
	assert_int_equal(space_remap(sp, END - half, 2 * END, half), 0);
	space_drop_range(sp, START + 3 * half, END, true);
	space_drop_range(sp, START, START + 3 * half, true);
	assert_int_equal(space_verify(sp), 0);
	assert_int_equal(sp->areas[0].live, 1);
	space_drop_range(sp, 2 * END, 2 * END + half, true);
	assert_int_equal(space_verify(sp), 0);
	assert_null(sp->areas[0].chunks);
	assert_int_equal(sp->ended_areas + (sp->free_area > 0), 1);
	unmake(sp);
}

/* What is in a slot keeps them for as long, here and not in a child. */
static void test_unmapped_in_slot(void **state)
{
	struct space *sp = make(), *child;
	struct slot *sl = leave(sp, 0, 300, 1);

	(void)state;
	space_drop_range(sp, START, END, true);
	assert_int_equal(space_verify(sp), 0);
	assert_int_equal(sp->areas[0].live, 1);
	child = space_fork(sp, -1);
	assert_non_null(child);
	assert_int_equal(space_verify(child), 0);
	assert_int_equal(child->areas[0].live, 0);
	tmem_pool_destroy(run.client, child->pool);
	space_free(child);
	settle(sp, sl);
	assert_int_equal(space_verify(sp), 0);
	assert_null(sp->areas[0].chunks);
	unmake(sp);
}

/* As victims.c takes them, and puts back the one that there is no room for. */
static void take_entries(struct space *sp, struct queue *q, unsigned n)
{
	uint64_t v;

	for (; queue_pop(q, &v); n--) {
		struct chunk *c = space_chunk(sp, entry_area(v), entry_page(v), false);
		struct place *at = c ? &c->place[v % CHUNK_PAGES] : NULL;

		if (c && !n) {
			assert_true(queue_push_front(q, v));
			return;
		}
		sp->dead_entries -= !c;
		if (at && at->queued == QUEUED) {
			at->queued = QUEUED_NOT;
			sp->queued_pages--;
		}
		n += !n;
	}
}

/* Mappings come and go: the books stay as large as what is there, and a number that is used again
 * knows nothing of its past. */
static void test_many_mappings(void **state)
{
	enum { HELD = 16, N = 24 };
	struct space *sp = make();
	struct slot *busy[HELD] = {NULL};
	uint64_t r = 1;

	(void)state;
	for (unsigned k = 0; k < 100000; k++) {
		unsigned i = k % HELD;
		uint64_t at = 2 * END + i * 64 * AGENT_PAGE, end = at + N * AGENT_PAGE, cut;
		struct segment *seg;

		r = r * 6364136223846793005u + 1442695040888963407u;
		cut = at + (r >> 60) * AGENT_PAGE;
		if (k >= HELD && cut > at)
			space_drop_range(sp, at, cut, true);
		if (busy[i])
			settle(sp, busy[i]);
		busy[i] = NULL;
		if (k >= HELD)
			space_drop_range(sp, cut, end, true);
		assert_int_equal(space_add_segment(sp, at, end), 0);
		seg = space_find(sp, at);
		for (uint64_t p = 0; p < N; p++)
			assert_null(space_page(sp, seg->area, seg->page + p));
		space_mark_resident(sp, seg, at + (r >> 50 & 7) * AGENT_PAGE, 8,
				    r >> 42 & 1 ? ARRIVAL_FRESH : ARRIVAL_FOUND);
		if (r >> 40 & 1)
			busy[i] = leave_from(sp, i, at + 7 * AGENT_PAGE, 1);
		if (r >> 41 & 1 && busy[i]) /* unmapped in transit, and settled a long time after */
			space_drop_range(sp, at, end, true);
		if (k % 5 == 0)
			take_entries(sp, r >> 43 & 1 ? &sp->main : &sp->probation, r >> 45 & 15);
		if (k % 1000)
			continue;
		assert_int_equal(space_verify(sp), 0);
		assert_true(sp->nareas < 512);
		assert_true(sp->probation.count + sp->main.count < 3 * PAGES + 8192);
	}
	unmake(sp);
}

static bool is_emptied(struct space *sp, uint64_t page)
{
	return space_chunk(sp, 0, page, false)->place[page % CHUNK_PAGES].emptied;
}

/* What the parent has emptied a child may find missing (I9), but not what left since. */
static void test_fork_after_emptied(void **state)
{
	struct space *sp = make(), *child;
	uint64_t first = START / AGENT_PAGE % TMEM_CLUSTER_MAX;
	struct segment *seg;

	(void)state;
	space_drop_range(sp, START + 3 * AGENT_PAGE, START + 5 * AGENT_PAGE, false);
	space_mark_resident(sp, space_find(sp, START), START + 3 * AGENT_PAGE, 2, ARRIVAL_FRESH);
	/* An area of which nothing was known when it was emptied. */
	assert_int_equal(space_add_segment(sp, 2 * END, 2 * END + 1024 * AGENT_PAGE), 0);
	space_drop_range(sp, 2 * END, 2 * END + 1024 * AGENT_PAGE, false);
	space_mark_resident(sp, space_find(sp, 2 * END), 2 * END, 8, ARRIVAL_FRESH);
	space_chunk(sp, 1, 5, false)->place[5].emptied = 0; /* it left, and came back */
	child = space_fork(sp, -1);
	assert_non_null(child);
	for (uint64_t k = 0; k < 8; k++)
		assert_int_equal(is_emptied(child, first + k), k == 3 || k == 4);
	for (uint64_t k = 0; k < 8; k++)
		assert_int_equal(space_chunk(child, 1, k, false)->place[k].emptied, k != 5);
	/* A chunk that the child makes itself. */
	seg = space_find(child, 2 * END);
	space_mark_resident(child, seg, 2 * END + 800 * AGENT_PAGE, 1, ARRIVAL_FRESH);
	assert_int_equal(space_chunk(child, 1, 800, false)->place[800 % CHUNK_PAGES].emptied, 1);
	tmem_pool_destroy(run.client, child->pool);
	space_free(child);
	unmake(sp);
}

/* What is found where it was to be emptied is not to leave before it is (I5), and may be missing
 * (I9). */
static void test_found_too_early(void **state)
{
	struct space *sp = make();
	uint64_t at = 2 * END, end = at + 64 * AGENT_PAGE;
	struct segment *seg;

	(void)state;
	space_drop_range(sp, at, at + 8 * AGENT_PAGE, false); /* of which nothing is known yet */
	for (unsigned k = 0; k < 2; k++) {
		struct chunk *c;

		assert_int_equal(space_add_segment(sp, at, end), 0);
		seg = space_find(sp, at);
		space_mark_resident(sp, seg, at, 4, ARRIVAL_FOUND);
		c = space_chunk(sp, seg->area, seg->page, false);
		for (uint64_t i = 0; i < 4; i++) {
			assert_int_equal(!!(c->page[seg->page + i] & PAGE_REMOVED), k == 0);
			assert_int_equal(c->place[seg->page + i].emptied, k == 0);
		}
		space_early_over(sp, at, end);
		assert_int_equal(space_verify(sp), 0);
		space_drop_range(sp, at, end, true);
	}
	unmake(sp);
}

/* Zeros that a fork may have copied, or not: the child's may leave, and may be missing. */
static void test_fork_of_zeros(void **state)
{
	struct space *sp = make(), *child;
	uint64_t first = START / AGENT_PAGE % TMEM_CLUSTER_MAX;

	(void)state;
	space_mark_zero(sp, space_find(sp, START), START + AGENT_PAGE, 1);
	child = space_fork(sp, -1);
	assert_non_null(child);
	for (uint64_t k = 0; k < 3; k++) {
		assert_int_equal(*space_page(child, 0, first + k) & PAGE_STATE, PAGE_RESIDENT);
		assert_int_equal(is_emptied(child, first + k), k == 1);
	}
	tmem_pool_destroy(run.client, child->pool);
	space_free(child);
	unmake(sp);
}

/* Children whose clones take more than the store's limit: they must not be refused. */
static void test_fork_beyond_the_limit(void **state)
{
	struct space *sp = make(), *child[64];
	tmem_stats st = {.size = sizeof(st)};
	uint64_t seven[AGENT_PAGE / 8];
	uint64_t limit;

	(void)state;
	for (unsigned i = 0; i < AGENT_PAGE / 8; i++)
		seven[i] = 7;
	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t index, at = page + START / AGENT_PAGE % CHUNK_PAGES;
		tmem_oid oid;

		space_oid(0, at, &oid, &index);
		assert_int_equal(tmem_put(run.client, sp->pool, &oid, index, seven), 0);
		space_set_page(space_chunk(sp, 0, at, false), at, PAGE_OUT);
	}
	assert_int_equal(tmem_host_stats(run.host, &st), 0);
	limit = st.store_bytes + 65536;
	assert_int_equal(tmem_host_set_limit(run.host, limit), 0);
	for (unsigned i = 0; i < 64; i++) {
		uint64_t page[AGENT_PAGE / 8], index;
		tmem_oid oid;

		child[i] = space_fork(sp, -1);
		assert_non_null(child[i]);
		assert_int_equal(space_verify(child[i]), 0);
		space_oid(0, i + START / AGENT_PAGE % CHUNK_PAGES, &oid, &index);
		assert_int_equal(tmem_get(run.client, child[i]->pool, &oid, index, page), 0);
		assert_memory_equal(page, seven, AGENT_PAGE);
	}
	assert_int_equal(tmem_host_stats(run.host, &st), 0);
	assert_true(st.limit_bytes > limit);
	for (unsigned i = 0; i < 64; i++) {
		tmem_pool_destroy(run.client, child[i]->pool);
		space_free(child[i]);
	}
	unmake(sp);
}

/* A queue beside an array that does the same; and it takes what is in it, and little more. */
static void test_queue(void **state)
{
	enum { MOST = 5 * QUEUE_BLOCK };
	static uint64_t model[4 * MOST];
	struct queue q = {0};
	uint64_t r = 1, next = 0, v;

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		uint32_t head = 2 * MOST, end = head;
		bool grows = round % 3 == 0;

		for (unsigned i = 0; i < MOST; i++) {
			r = r * 6364136223846793005u + 1442695040888963407u;
			switch ((r >> 60) % (grows ? 4 : 3)) {
			case 0:
			case 3:
				assert_true(queue_push(&q, ++next));
				model[end++] = next;
				break;
			case 1:
				if (round % 2) { /* what is put back was taken before */
					assert_true(queue_push_front(&q, ++next));
					model[--head] = next;
				}
				break;
			default:
				assert_int_equal(queue_pop(&q, &v), head < end);
				if (head < end)
					assert_int_equal(v, model[head++]);
			}
			assert_int_equal(q.count, end - head);
		}
		while (queue_pop(&q, &v))
			assert_int_equal(v, model[head++]);
		assert_int_equal(head, end);
		assert_int_equal(q.count, 0);
		assert_null(q.first);
		assert_null(q.last);
	}
	os_free(q.spare);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_back_and_unmapped),
		cmocka_unit_test(test_back_and_over),
		cmocka_unit_test(test_dropped_in_transit),
		cmocka_unit_test(test_moved_in_transit),
		cmocka_unit_test(test_unmapped_in_parts),
		cmocka_unit_test(test_unmapped_in_slot),
		cmocka_unit_test(test_many_mappings),
		cmocka_unit_test(test_fork_after_emptied),
		cmocka_unit_test(test_found_too_early),
		cmocka_unit_test(test_fork_of_zeros),
		cmocka_unit_test(test_fork_beyond_the_limit),
		cmocka_unit_test(test_queue),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
