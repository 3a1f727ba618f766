/* SPDX-License-Identifier: BSD-2-Clause */
/* See queue.h. */
#include "frontswap/pager/queue.h"

#include "os/mem.h"

#include <errno.h>
#include <stddef.h>

/* A block for q's front (its entries begin at its end) or back. */
static struct queue_block *block_new(struct queue *q, uint32_t at)
{
	struct queue_block *b = q->spare ? q->spare : os_alloc(sizeof(*b));

	q->spare = NULL;
	if (b) {
		b->next = NULL;
		b->head = b->end = at;
	}
	return b;
}

bool queue_push(struct queue *q, uint64_t v)
{
	if (!q->last || q->last->end == QUEUE_BLOCK) {
		struct queue_block *b = block_new(q, 0);

		if (!b)
			return false;
		if (q->last)
			q->last->next = b;
		else
			q->first = b;
		q->last = b;
	}
	q->last->at[q->last->end++] = v;
	q->count++;
	return true;
}

bool queue_push_front(struct queue *q, uint64_t v)
{
	if (!q->first || !q->first->head) {
		struct queue_block *b = block_new(q, QUEUE_BLOCK);

		if (!b)
			return false;
		b->next = q->first;
		q->first = b;
		if (!q->last)
			q->last = b;
	}
	q->first->at[--q->first->head] = v;
	q->count++;
	return true;
}

bool queue_pop(struct queue *q, uint64_t *v)
{
	struct queue_block *b = q->first;

	if (!b)
		return false;
	*v = b->at[b->head++];
	q->count--;
	if (b->head == b->end) {
		q->first = b->next;
		if (!q->first)
			q->last = NULL;
		os_free(q->spare);
		q->spare = b;
	}
	return true;
}

void queue_filter(struct queue *q, bool (*keep)(void *arg, uint64_t v), void *arg)
{
	struct queue_block *to = q->first, *b;
	uint32_t n = to ? to->head : 0;

	for (b = q->first; b; b = b->next) {
		for (uint32_t i = b->head; i < b->end; i++) {
			uint64_t v = b->at[i];

			if (!keep(arg, v)) {
				q->count--;
				continue;
			}
			if (n == QUEUE_BLOCK) { /* full: `to` is behind b, which is read */
				to = to->next;
				n = 0;
			}
			to->at[n++] = v;
		}
	}
	if (!to)
		return;
	b = q->count ? to->next : to;
	q->last = q->count ? to : NULL;
	if (q->count) {
		to->end = n;
		to->next = NULL;
	} else {
		q->first = NULL;
	}
	while (b) {
		struct queue_block *next = b->next;

		os_free(b);
		b = next;
	}
}

int queue_verify(const struct queue *q)
{
	uint32_t n = 0;

	for (const struct queue_block *b = q->first; b; b = b->next) {
		if (b->head >= b->end || b->end > QUEUE_BLOCK || (b != q->first && b->head) ||
		    (b->next ? b->end != QUEUE_BLOCK : b != q->last))
			return -EINVAL;
		n += b->end - b->head;
	}
	return n == q->count && !q->first == !q->last ? 0 : -EINVAL;
}

void queue_free(struct queue *q)
{
	uint64_t v;

	while (queue_pop(q, &v))
		;
	os_free(q->spare);
	q->spare = NULL;
}
