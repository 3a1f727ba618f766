/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A queue of numbers that takes the memory that what is in it takes: a list of blocks.
 *
 *     first                                    last
 *     [....abcd] -> [efghijkl] -> [mnopqrst] -> [uv......]
 *          ^head                                   ^end
 *
 *   Q1  only the first block begins, and only the last one ends, with a gap
 *   Q2  count = entries of all blocks; no block is empty
 *
 * No locks; a zeroed struct is an empty queue.
 */
#ifndef TMEM_PAGER_QUEUE_H
#define TMEM_PAGER_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#define QUEUE_BLOCK 1022u
struct queue_block {
	struct queue_block *next;
	uint32_t head, end; /* its entries are [head, end) */
	uint64_t at[QUEUE_BLOCK];
};
struct queue {
	struct queue_block *first, *last;
	struct queue_block *spare; /* the one that became empty last, or NULL */
	uint32_t count;
};

/* False: no memory, nothing has changed. */
bool queue_push(struct queue *q, uint64_t v);
bool queue_push_front(struct queue *q, uint64_t v);
/* False: it is empty. */
bool queue_pop(struct queue *q, uint64_t *v);
/* Entries for which keep() says so close up, in order; the others are left out. */
void queue_filter(struct queue *q, bool (*keep)(void *arg, uint64_t v), void *arg);
/* -EINVAL: Q1 or Q2 does not hold. */
int queue_verify(const struct queue *q);
/* All of its memory; the queue is empty then. */
void queue_free(struct queue *q);

#endif
