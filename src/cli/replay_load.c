/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A trace file into events on numbered pages.
 *
 *   records -> sorted by time (blocks of several threads overlap) -> events of
 *   one page each; pages and objects get numbers when they are first named
 *
 * Names are looked up in two open hash tables. Invalidations of ranges, objects
 * and pools become one drop for each page of them that was named before: pages
 * of an object are chained. A clone of a pool has pages that were never put into
 * it: a get there of a page that the clone itself does not have is a get of its
 * source's page, which stays. What a file may make us allocate is bounded: a
 * record of more than RUN_MAX pages is refused, and so are more than EVENTS_MAX
 * events in all.
 */
#include "cli/replay.h"

#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN_MAX	   (1u << 16)
#define MAP_MAX	   (1u << 22)
#define EVENTS_MAX (1u << 30)
#define NONE	   UINT32_MAX

struct record { /* what sorting needs of an operation */
	uint64_t time_ns, index, n;
	uint32_t seq; /* in the file: of equal times the first is first */
	uint32_t object;
	uint32_t zsize;
	uint8_t op;
	bool ok;
	uint16_t nsizes;
	uint32_t sizes; /* where, in loader.size */
};

struct object {
	uint32_t client;
	int32_t pool;
	uint64_t oid[3];
	uint32_t first; /* page, or NONE */
};

struct clone {
	uint32_t client;
	int32_t pool, source;
};

struct table { /* numbers by hash; NONE: free */
	uint32_t *slot;
	uint64_t size;
};

struct loader {
	struct replay_trace *t;
	struct record *record;
	uint64_t nrecords, records_size;
	uint16_t *size;
	uint64_t nsizes, sizes_size;
	struct object *object;
	uint64_t objects_size, pages_size, events_size;
	struct table objects, pages;
	struct clone *clone;
	uint64_t nclones, clones_size;
	bool maps;
	char *err;
	size_t errlen;
};

static int fail(struct loader *l, int rc, const char *what)
{
	snprintf(l->err, l->errlen, "%s", what);
	return rc;
}

/* Room for one more of what is at *array. */
static int grow(void **array, uint64_t count, uint64_t *size, size_t each)
{
	uint64_t more = *size ? *size + *size / 2 : 1024;
	void *p;

	if (count < *size)
		return 0;
	p = realloc(*array, more * each);
	if (!p)
		return -ENOMEM;
	*array = p;
	*size = more;
	return 0;
}
#define GROW(array, count, size) grow((void **)&(array), count, &(size), sizeof(*(array)))

/* ---- names ------------------------------------------------------------------ */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint64_t object_hash(const struct object *o)
{
	return mix(o->oid[0] + mix(o->oid[1] + mix(o->oid[2] + mix((uint64_t)o->client << 32 |
								   (uint32_t)o->pool))));
}

static uint64_t page_hash(uint32_t object, uint64_t index)
{
	return mix(index + mix(object));
}

/* Twice the slots, when half are used; hash(l, number) says where each goes. */
static int table_grow(struct loader *l, struct table *t, uint64_t used,
		      uint64_t (*hash)(const struct loader *l, uint32_t number))
{
	uint64_t size = t->size ? t->size * 2 : 4096, k;
	uint32_t *slot;

	if (used * 2 < t->size)
		return 0;
	slot = malloc(size * sizeof(*slot));
	if (!slot)
		return -ENOMEM;
	memset(slot, 0xff, size * sizeof(*slot));
	for (uint32_t i = 0; i < used; i++) {
		for (k = hash(l, i) & (size - 1); slot[k] != NONE; k = (k + 1) & (size - 1))
			;
		slot[k] = i;
	}
	free(t->slot);
	t->slot = slot;
	t->size = size;
	return 0;
}

static uint64_t hash_of_object(const struct loader *l, uint32_t i)
{
	return object_hash(&l->object[i]);
}

static uint64_t hash_of_page(const struct loader *l, uint32_t i)
{
	return page_hash(l->t->page[i].object, l->t->page[i].index);
}

static int object_number(struct loader *l, const struct object *key, uint32_t *out)
{
	struct object o = *key;
	uint64_t k;

	o.first = NONE;
	if (table_grow(l, &l->objects, l->t->nobjects, hash_of_object) ||
	    GROW(l->object, l->t->nobjects, l->objects_size))
		return -ENOMEM;
	for (k = object_hash(&o); (*out = l->objects.slot[k &= l->objects.size - 1]) != NONE; k++) {
		const struct object *e = &l->object[*out];

		if (e->client == o.client && e->pool == o.pool &&
		    !memcmp(e->oid, o.oid, sizeof(o.oid)))
			return 0;
	}
	*out = l->objects.slot[k] = (uint32_t)l->t->nobjects++;
	l->object[*out] = o;
	return 0;
}

/* The page's place in the table of numbers: one that holds it, or a free one. */
static uint64_t page_slot(const struct loader *l, uint32_t object, uint64_t index)
{
	const struct replay_page *page = l->t->page;
	uint64_t k = page_hash(object, index);
	uint32_t p;

	for (;; k++) {
		p = l->pages.slot[k &= l->pages.size - 1];
		if (p == NONE || (page[p].object == object && page[p].index == index))
			return k;
	}
}

static int page_number(struct loader *l, uint32_t object, uint64_t index, uint32_t *out)
{
	struct replay_trace *t = l->t;
	uint64_t k;

	if (t->npages == NONE - 1)
		return -E2BIG;
	if (table_grow(l, &l->pages, t->npages, hash_of_page) ||
	    GROW(t->page, t->npages, l->pages_size))
		return -ENOMEM;
	k = page_slot(l, object, index);
	*out = l->pages.slot[k];
	if (*out != NONE)
		return 0;
	*out = l->pages.slot[k] = (uint32_t)t->npages++;
	t->page[*out] = (struct replay_page){.object = object, .index = index};
	t->page[*out].next = l->object[object].first;
	l->object[object].first = *out;
	return 0;
}

static const struct clone *clone_of(const struct loader *l, const struct object *o)
{
	for (uint64_t i = l->nclones; i-- > 0;)
		if (l->clone[i].client == o->client && l->clone[i].pool == o->pool)
			return &l->clone[i];
	return NULL;
}

/* The object that really has the page: this one, or that of a pool it was cloned from. */
static int source_object(struct loader *l, uint64_t index, uint32_t *object)
{
	struct object o = l->object[*object];
	const struct clone *c;
	unsigned depth = 0;
	uint32_t at = *object;

	while (l->pages.size && l->pages.slot[page_slot(l, at, index)] == NONE) {
		c = clone_of(l, &o);
		if (!c || ++depth > 1000)
			return 0;
		o.pool = c->source;
		if (object_number(l, &o, &at))
			return -ENOMEM;
	}
	*object = at;
	return 0;
}

/* ---- reading ----------------------------------------------------------------- */

static int keep_record(struct loader *l, const struct trace_op *op)
{
	uint64_t most = op->op == TRACE_MAP ? MAP_MAX : RUN_MAX;
	bool ranged = op->op == TRACE_PUT || op->op == TRACE_GET || op->op == TRACE_GET_AND_DROP ||
		      op->op == TRACE_READ || op->op == TRACE_WRITE || op->op == TRACE_MAP;
	struct object name = {.client = op->client, .pool = op->pool};
	struct record *r;

	memcpy(name.oid, op->oid, sizeof(name.oid));
	if (ranged && (op->n > most || op->index + op->n < op->index))
		return fail(l, -EBADMSG, "names more pages in one operation than any has");
	if (GROW(l->record, l->nrecords, l->records_size))
		return fail(l, -ENOMEM, "out of memory");
	if (l->nrecords == NONE)
		return fail(l, -E2BIG, "has too many operations");
	r = &l->record[l->nrecords];
	*r = (struct record){.time_ns = op->time_ns,
			     .index = op->index,
			     .n = op->n,
			     .seq = (uint32_t)l->nrecords,
			     .zsize = op->zsize,
			     .op = (uint8_t)op->op,
			     .ok = op->ok,
			     .nsizes = (uint16_t)op->nsizes,
			     .sizes = (uint32_t)l->nsizes};
	if (l->nsizes + op->nsizes > NONE || object_number(l, &name, &r->object))
		return fail(l, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < op->nsizes; i++) {
		if (GROW(l->size, l->nsizes, l->sizes_size))
			return fail(l, -ENOMEM, "out of memory");
		l->size[l->nsizes++] = op->size[i];
	}
	l->nrecords++;
	l->t->ops[op->op]++;
	if (ranged)
		l->t->pages[op->op] += op->n;
	return 0;
}

static int read_all(struct loader *l, int fd)
{
	static struct trace_reader r; /* large */
	struct trace_op op;
	int rc = trace_reader_start(&r, fd);

	while (rc >= 0 && (rc = trace_reader_next(&r, &op)) == 1) {
		rc = keep_record(l, &op);
		if (rc)
			return rc;
	}
	if (rc < 0)
		return fail(l, rc, r.err);
	l->t->records = r.records;
	l->t->blocks = r.blocks;
	l->t->lost = r.lost;
	l->t->bytes = r.size;
	l->t->cut = r.cut;
	return 0;
}

static int by_time(const void *a, const void *b)
{
	const struct record *x = a, *y = b;

	if (x->time_ns != y->time_ns)
		return x->time_ns < y->time_ns ? -1 : 1;
	return (x->seq > y->seq) - (x->seq < y->seq);
}

static void sort(struct loader *l)
{
	for (uint64_t i = 1; i < l->nrecords; i++)
		if (l->record[i].time_ns < l->record[i - 1].time_ns) {
			qsort(l->record, l->nrecords, sizeof(*l->record), by_time);
			return;
		}
}

/* ---- events ------------------------------------------------------------------ */

static int add_event(struct loader *l, const struct record *r, uint32_t page, enum replay_kind kind)
{
	struct replay_trace *t = l->t;

	if (t->nevents == EVENTS_MAX)
		return fail(l, -E2BIG, "has too many operations");
	if (GROW(t->event, t->nevents, l->events_size))
		return fail(l, -ENOMEM, "out of memory");
	t->event[t->nevents++] = (struct replay_event){
		.time_ns = r->time_ns - l->record[0].time_ns, .page = page, .kind = kind};
	t->puts += kind == REPLAY_PUT;
	t->drops += kind == REPLAY_DROP;
	if (kind <= REPLAY_TAKE) {
		t->asks++;
		t->hits += r->ok && kind != REPLAY_ASK;
	}
	return 0;
}

static void set_size(struct replay_page *p, const struct loader *l, const struct record *r,
		     uint64_t i)
{
	if (r->nsizes > i)
		p->zsize = l->size[r->sizes + i];
	else if (r->op == TRACE_PUT && r->ok && r->n)
		p->zsize = (uint16_t)(r->zsize / r->n < 4096 ? r->zsize / r->n : 4096);
	else
		return;
	p->known = true;
}

static int add_run(struct loader *l, const struct record *r, enum replay_kind kind)
{
	uint32_t page, object;
	int rc = 0;

	for (uint64_t i = 0; i < r->n && rc == 0; i++) {
		bool inherited;

		object = r->object;
		if (l->nclones && (kind == REPLAY_GET || kind == REPLAY_TAKE))
			rc = source_object(l, r->index + i, &object);
		inherited = object != r->object;
		if (rc == 0)
			rc = page_number(l, object, r->index + i, &page);
		if (rc)
			return fail(l, rc, "out of memory");
		set_size(&l->t->page[page], l, r, i);
		rc = add_event(l, r, page, inherited ? REPLAY_GET : kind);
	}
	return rc;
}

/* The pages of an object, those known by now, in [index, index + n). */
static int drop_known(struct loader *l, const struct record *r, uint32_t object, uint64_t index,
		      uint64_t n)
{
	uint32_t page = l->object[object].first;
	int rc = 0;

	for (; page != NONE && rc == 0; page = l->t->page[page].next)
		if (l->t->page[page].index - index < n)
			rc = add_event(l, r, page, REPLAY_DROP);
	return rc;
}

static int drop_pool(struct loader *l, const struct record *r)
{
	const struct object *of = &l->object[r->object];
	int rc = 0;

	for (uint32_t i = 0; i < l->t->nobjects && rc == 0; i++)
		if (l->object[i].client == of->client && l->object[i].pool == of->pool)
			rc = drop_known(l, r, i, 0, UINT64_MAX);
	return rc;
}

static int add_clone(struct loader *l, const struct record *r)
{
	const struct object *from = &l->object[r->object];

	if (GROW(l->clone, l->nclones, l->clones_size))
		return fail(l, -ENOMEM, "out of memory");
	l->clone[l->nclones++] = (struct clone){from->client, (int32_t)r->index, from->pool};
	return 0;
}

static int add_record(struct loader *l, const struct record *r)
{
	switch ((enum trace_opcode)r->op) {
	case TRACE_PUT:
		/* One that failed left nothing: a drop. */
		return add_run(l, r, r->ok ? REPLAY_PUT : REPLAY_DROP);
	case TRACE_GET:
		return add_run(l, r, REPLAY_GET);
	case TRACE_GET_AND_DROP:
		return add_run(l, r, REPLAY_TAKE);
	case TRACE_READ:
		return add_run(l, r, REPLAY_ASK);
	case TRACE_MAP:
		return l->maps ? add_run(l, r, REPLAY_ASK) : 0;
	case TRACE_WRITE:
		return add_run(l, r, REPLAY_DROP);
	case TRACE_DROP:
		return drop_known(l, r, r->object, r->index, r->n);
	case TRACE_DROP_OBJECT:
		return drop_known(l, r, r->object, 0, UINT64_MAX);
	case TRACE_FLUSH_POOL:
	case TRACE_POOL_END:
		return drop_pool(l, r);
	case TRACE_POOL_CLONE:
		return add_clone(l, r);
	default:
		return 0;
	}
}

static void sum_up(struct loader *l)
{
	struct replay_trace *t = l->t;

	for (uint64_t i = 0; i < t->npages; i++) {
		struct replay_page *p = &t->page[i];

		if (!p->known) {
			p->zsize = REPLAY_ZSIZE;
			t->unknown_sizes++;
		}
		t->footprint += replay_cost(p);
	}
	if (l->nrecords)
		t->duration_ns = l->record[l->nrecords - 1].time_ns - l->record[0].time_ns;
}

int replay_load(const char *path, bool maps, struct replay_trace *out, char *err, size_t errlen)
{
	struct loader l = {.t = out, .maps = maps, .err = err, .errlen = errlen};
	int fd, rc;

	*out = (struct replay_trace){0};
	fd = os_file_open(path, O_RDONLY, 0);
	if (fd < 0)
		snprintf(err, errlen, "cannot be opened: %s", strerror(-fd));
	if (fd < 0)
		return fd;
	rc = read_all(&l, fd);
	os_file_close(fd);
	if (rc == 0)
		sort(&l);
	for (uint64_t i = 0; i < l.nrecords && rc == 0; i++)
		rc = add_record(&l, &l.record[i]);
	sum_up(&l);
	free(l.record);
	free(l.size);
	free(l.object);
	free(l.clone);
	free(l.objects.slot);
	free(l.pages.slot);
	if (rc)
		replay_free(out);
	return rc;
}

void replay_free(struct replay_trace *t)
{
	free(t->event);
	free(t->page);
	*t = (struct replay_trace){0};
}
