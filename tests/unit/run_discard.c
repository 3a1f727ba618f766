/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem run without UFFDIO_MOVE: what the host concludes from an agent's marks and the events that
 * came meanwhile. The agent and the kernel are played here.
 */
#include "run_test.h"

#include "frontswap/pager/discard.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define START 0x10000000ull
#define PAGES 64u
#define N     8u /* pages of the command */
#define ALL   ((1u << N) - 1)

static struct run run;
static struct agent_shm memory, *const shm = &memory;
static bool quiet, failed;

/* What the agent answers, and which pages are emptied by whom while it marks. */
static struct play {
	uint32_t moved, marked, error, tried;
	uint32_t ours, theirs; /* REMOVE events, one a page */
	bool moved_away;
	/* Looks for what is unsure: what is found by each, and whether something moves meanwhile.
	 */
	unsigned looks;
	struct look {
		uint32_t stays, left;
		bool moves;
	} look[3];
} play;
static _Atomic unsigned looked;
static uint32_t heard; /* what the agent can see of changes when it has made its marks */

void pager_fail(struct space *sp, const char *why)
{
	(void)why;
	sp->gone = true;
	failed = true;
}

bool events_quiet(struct space *sp)
{
	unsigned i = atomic_load(&looked);

	if (i && play.look[i - 1].moves) {
		play.look[i - 1].moves = false;
		discard_changed(sp, START, START + AGENT_PAGE);
	}
	return quiet;
}

/* The agent, while the host is not sure. */
static void *look_again(void *arg)
{
	for (unsigned i = 0; i < play.looks; i++) {
		uint32_t go;

		while ((go = atomic_load(&shm->go)) != atomic_load(&shm->moved) + AGENT_AGAIN + i)
			sched_yield();
		shm->cmds[0].stays = play.look[i].stays;
		shm->cmds[0].left = play.look[i].left;
		atomic_store(&looked, i + 1);
		atomic_store(&shm->again, go);
	}
	return arg;
}

bool evict_wait(struct space *sp)
{
	(void)sp;
	return true;
}

void keep_forget(struct space *sp, uint32_t area, uint64_t page)
{
	(void)sp;
	(void)area;
	(void)page;
}

void pager_read_ready(struct space *sp, short revents)
{
	(void)sp;
	(void)revents;
}

void pager_woken(struct space *sp, short wake, short told)
{
	(void)sp;
	(void)wake;
	(void)told;
}

static void removed(struct space *sp, uint32_t mask)
{
	for (uint32_t k = 0; k < N; k++) {
		uint64_t at = START + k * AGENT_PAGE;

		/* As pager_read_events(); then it is the program's, and the books follow. */
		if (mask >> k & 1 && !discard_removed(sp, at, at + AGENT_PAGE))
			space_drop_range(sp, at, at + AGENT_PAGE, false);
	}
}

/* The agent's first half, and the events that are read until it is over. */
void evict_send(struct space *sp, uint32_t op, uint32_t ncmds)
{
	struct agent_cmd *cmd = &shm->cmds[0];

	assert_int_equal(op, AGENT_OP_DISCARD);
	assert_int_equal(ncmds, 1);
	assert_int_equal(atomic_load(&shm->disturbed), 0);
	memcpy(shm->cmds, sp->cmds, sizeof(sp->cmds[0]));
	removed(sp, play.theirs & ~play.tried); /* before the agent came to them */
	discard_reads(sp, true);
	assert_int_equal(atomic_load(&shm->reading), 1);
	atomic_store(&cmd->tried, play.tried);
	removed(sp, play.ours);
	removed(sp, play.theirs & play.tried);
	if (play.moved_away)
		discard_changed(sp, START + AGENT_PAGE, START + 2 * AGENT_PAGE);
	heard = atomic_load(&shm->disturbed);
	discard_reads(sp, false);
	assert_int_equal(atomic_load(&shm->reading), 0);
	cmd->moved = play.moved;
	cmd->marked = play.marked;
	cmd->error = (int32_t)play.error;
	atomic_store(&shm->moved, ++sp->command);
}

/* A round of one command over the first N pages. */
static struct space *round_of(const struct play *p)
{
	struct space *sp;
	pthread_t agent;

	play = *p;
	quiet = true;
	failed = false;
	sp = test_space(&run, RUN_EVICT_DISCARD, START, PAGES);
	sp->shm = shm;
	memset(shm->cmds, 0, sizeof(shm->cmds));
	space_mark_resident(sp, space_find(sp, START), START, PAGES, ARRIVAL_FRESH);
	sp->cmds[0] = (struct agent_cmd){.addr = START, .pages = N, .slot = 3};
	sp->slots[3].area = space_find(sp, START)->area;
	sp->slots[3].first = space_find(sp, START)->page;
	sp->slots[3].pages = N;
	atomic_store(&sp->slots[3].state, SLOT_MOVING);
	for (uint32_t k = 0; k < N; k++) {
		uint64_t page = sp->slots[3].first + k;

		space_set_page(space_chunk(sp, sp->slots[3].area, page, false), page, PAGE_TRANSIT);
	}
	atomic_store(&looked, 0);
	atomic_store(&shm->go, 0);
	atomic_store(&shm->disturbed, ~0u); /* of a round before */
	assert_int_equal(pthread_create(&agent, NULL, look_again, NULL), 0);
	assert_true(discard_mark(sp, 1) || failed);
	pthread_join(agent, NULL);
	return sp;
}

/* The agent's second half. */
static void finish(struct space *sp, uint32_t stays, uint32_t left)
{
	shm->cmds[0].stays = stays;
	shm->cmds[0].left = left;
	sp->slots[3].moved = play.moved;
	atomic_store(&sp->slots[3].state, SLOT_COPYING);
	atomic_store(&shm->done, sp->command);
	assert_true(discard_settled(sp, false));
}

static uint8_t state_of(struct space *sp, uint32_t k)
{
	return *space_page(sp, sp->slots[3].area, sp->slots[3].first + k);
}

static void end_round(struct space *sp)
{
	sp->shm = NULL; /* the test's */
	test_space_end(&run, sp);
}

static void test_goes(void **state)
{
	struct space *sp =
		round_of(&(struct play){.moved = ALL, .marked = ALL, .tried = ALL, .ours = ALL});

	(void)state;
	assert_int_equal(shm->cmds[0].go, 1);
	assert_int_equal(sp->slots[3].dropped, 0);
	end_round(sp);
}

/* The program empties pages that the agent marks just then: one event more than ours. */
static void test_emptied_meanwhile(void **state)
{
	struct space *sp = round_of(&(struct play){
		.moved = ALL, .marked = ALL, .tried = ALL, .ours = ALL, .theirs = 0x0c});

	(void)state;
	assert_int_equal(shm->cmds[0].go, 0);
	assert_int_equal(sp->slots[3].dropped, 0x0c);
	end_round(sp);
}

/* Emptied before the agent came to them: it is not one of ours, though a round is on. */
static void test_emptied_before(void **state)
{
	struct space *sp = round_of(&(struct play){
		.moved = 0x0f, .marked = 0x0f, .tried = 0x0f, .ours = 0x0f, .theirs = 0x30});

	(void)state;
	assert_int_equal(sp->slots[3].dropped, 0x30);
	assert_int_equal(shm->cmds[0].go, 0); /* what it speaks of has changed */
	end_round(sp);
}

/* A mark without an event has met other memory. */
static void test_mark_not_heard_of(void **state)
{
	struct space *sp = round_of(
		&(struct play){.moved = ALL, .marked = ALL, .tried = ALL, .ours = ALL & ~2u});

	(void)state;
	assert_int_equal(shm->cmds[0].go, 0);
	end_round(sp);
}

static void test_moved_away(void **state)
{
	struct space *sp = round_of(&(struct play){
		.moved = ALL, .marked = ALL, .tried = ALL, .ours = ALL, .moved_away = true});

	(void)state;
	assert_int_equal(shm->cmds[0].go, 0);
	assert_int_equal(sp->slots[3].dropped, 0);
	assert_int_equal(heard, 1); /* the agent takes its mark back, whatever comes there next */
	end_round(sp);
}

/* A mark that fails halfway: what is there stays, what is not the program has emptied; by a look at
 * which nothing moved, not by the one before it or the last. */
static void test_unsure(void **state)
{
	struct space *sp = round_of(&(struct play){.moved = ALL,
						   .marked = 0x0f,
						   .tried = ALL,
						   .ours = ALL,
						   .error = ENOMEM,
						   .looks = 3,
						   .look = {{.stays = 0, .left = 0, .moves = true},
							    {.stays = 0x3f, .left = 0xc0},
							    {.stays = 0x7f, .left = 0}}});

	(void)state;
	assert_int_equal(atomic_load(&looked), 3);
	assert_int_equal(shm->cmds[0].go, 0);
	discard_changed(sp, START, START + AGENT_PAGE); /* and on it goes */
	finish(sp, 0, ALL);
	assert_false(failed);
	for (uint32_t k = 0; k < 4; k++) /* of these there is the slot's copy */
		assert_int_equal(state_of(sp, k) & PAGE_STATE, PAGE_TRANSIT);
	for (uint32_t k = 4; k < 7; k++)
		assert_int_equal(state_of(sp, k), PAGE_RESIDENT | PAGE_REMOVED);
	assert_int_equal(state_of(sp, 7), PAGE_ABSENT | PAGE_REMOVED);
	assert_int_equal(sp->slots[3].moved, 0x0f);
	end_round(sp);
}

/* By books that are behind it is not known where a page is. */
static void test_unsure_deferred(void **state)
{
	struct space *sp = round_of(&(struct play){.moved = ALL, .marked = ALL, .tried = ALL});

	(void)state;
	assert_int_equal(shm->cmds[0].again, START);
	sp->ndeferred = 1;
	assert_true(discard_mark(sp, 1));
	assert_int_equal(shm->cmds[0].again, 0);
	sp->ndeferred = 0;
	end_round(sp);
}

/* Answers out of bounds say nothing of pages that were not asked for. */
static void test_lies(void **state)
{
	struct space *sp = round_of(
		&(struct play){.moved = ~0u, .marked = ~0u, .tried = ~0u, .ours = ALL, .error = 0});

	(void)state;
	assert_int_equal(shm->cmds[0].go, 1);
	assert_int_equal(sp->slots[3].dropped, 0);
	assert_int_equal(space_verify(sp), 0);
	end_round(sp);
}

/* After the marks an event is the program's, whatever it is about. */
static void test_after_the_marks(void **state)
{
	struct space *sp =
		round_of(&(struct play){.moved = ALL, .marked = ALL, .tried = ALL, .ours = ALL});

	(void)state;
	assert_false(discard_removed(sp, START, START + AGENT_PAGE));
	assert_int_equal(sp->discard.disturbed, 1);
	assert_false(discard_removed(sp, START + N * AGENT_PAGE, START + PAGES * AGENT_PAGE));
	end_round(sp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goes),
		cmocka_unit_test(test_emptied_meanwhile),
		cmocka_unit_test(test_emptied_before),
		cmocka_unit_test(test_mark_not_heard_of),
		cmocka_unit_test(test_moved_away),
		cmocka_unit_test(test_unsure),
		cmocka_unit_test(test_unsure_deferred),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_after_the_marks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
