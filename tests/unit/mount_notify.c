/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel is told: an open tells it to forget sizes only where it was told another one
 * (S1); what was asked before that is asked again (S2); changes are told once, and not where an
 * open did; what hangs holds up nothing else (T1); who is promised the file as it is is left alone
 * until he has read (T2).
 */
#include "cleancache/cleancache.h"
#include "os/clock.h"
#include "os/thread.h"

#include "tmem_test.h"

#include <unistd.h>

#define SECOND 1000000000ll
#define NODES  (1 + CC_TELLERS) /* the first, and one for each thread that tells to be busy with */

static struct cc_mount mount;
static struct cc_node root, folder[2], node[NODES];
static struct cc_file file[NODES];
static int fd;

/* ---- the kernel, and nodes ------------------------------------------------------------ */

static _Atomic unsigned forgot[NODES], changed[NODES]; /* what it was told of each node */
static _Atomic bool slow;	  /* it keeps who tells it of a change of a file waiting */
static _Atomic fuse_ino_t hangs;  /* or of this one alone, or of a name in this folder */
static _Atomic unsigned waits;	  /* so many do */
static _Atomic unsigned together; /* most of them at once in what hangs */

static void keep_waiting(fuse_ino_t ino)
{
	static _Atomic unsigned in;
	unsigned n;

	atomic_fetch_add(&waits, 1);
	if (atomic_load(&hangs) == ino) {
		n = atomic_fetch_add(&in, 1) + 1;
		if (n > atomic_load(&together))
			atomic_store(&together, n);
		while (atomic_load(&hangs) == ino)
			os_sleep_ns(1000000);
		atomic_fetch_sub(&in, 1);
	}
	while (atomic_load(&slow))
		os_sleep_ns(1000000);
	atomic_fetch_sub(&waits, 1);
}

int fuse_lowlevel_notify_inval_inode(struct fuse_session *se, fuse_ino_t ino, off_t off, off_t len)
{
	unsigned i = (unsigned)((struct cc_node *)(uintptr_t)ino - node);

	assert_true(i < NODES);
	if (off < 0) {
		atomic_fetch_add(&forgot[i], 1);
		return 0;
	}
	atomic_fetch_add(&changed[i], 1);
	keep_waiting(ino);
	return 0;
}

static _Atomic unsigned expired, forgotten;

int fuse_lowlevel_notify_inval_entry(struct fuse_session *se, fuse_ino_t parent, const char *name,
				     size_t bytes)
{
	keep_waiting(parent);
	atomic_fetch_add(&forgotten, 1);
	return 0;
}

int fuse_lowlevel_notify_expire_entry(struct fuse_session *se, fuse_ino_t parent, const char *name,
				      size_t bytes
#ifdef TMEM_FUSE_EXPIRE_FLAGS
				      ,
				      enum fuse_expire_flags flags
#endif
)
{
	assert_int_equal(bytes, strlen(name));
	if (atomic_load(&hangs) == parent)
		keep_waiting(parent);
	atomic_fetch_add(&expired, 1);
	return 0;
}

static _Atomic int refs;
static _Atomic int64_t charged;

bool cc_charge(struct cc_mount *m, uint64_t bytes)
{
	atomic_fetch_add(&charged, (int64_t)bytes);
	return true;
}

void cc_uncharge(struct cc_mount *m, uint64_t bytes)
{
	atomic_fetch_sub(&charged, (int64_t)bytes);
}

static _Atomic unsigned answered, changed_then; /* and what had been told by then */

void *fuse_req_userdata(fuse_req_t req)
{
	return &mount; /* by which order.h tells the race detector */
}

#undef fuse_reply_err /* the same */
int fuse_reply_err(fuse_req_t req, int err)
{
	assert_int_equal(err, 0);
	atomic_store(&changed_then, atomic_load(&changed[0]));
	atomic_fetch_add(&answered, 1);
	return 0;
}

void cc_node_ref(struct cc_mount *m, struct cc_node *n)
{
	atomic_fetch_add(&refs, 1);
}

void cc_node_unref(struct cc_mount *m, struct cc_node *n)
{
	atomic_fetch_sub(&refs, 1);
}

static unsigned idle; /* of the nodes, from the first on */

unsigned cc_nodes_idle(struct cc_mount *m, struct cc_node **out, unsigned max, bool folders)
{
	for (unsigned i = 0; i < idle; i++) {
		out[i] = &node[i];
		cc_node_ref(m, out[i]);
	}
	return idle;
}

bool cc_node_name(struct cc_mount *m, struct cc_node *n, char *name, size_t room,
		  struct cc_node **parent)
{
	if (!n->name)
		return false;
	snprintf(name, room, "%s", n->name);
	*parent = n->parent ? n->parent : &root;
	cc_node_ref(m, *parent);
	return true;
}

static void begin(void)
{
	char path[] = "/tmp/tmem-notify-XXXXXX";

	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	memset(&mount, 0, sizeof(mount));
	memset(node, 0, sizeof(node));
	mount.root = &root;
	mount.nodes_most = 1000;
	for (unsigned i = 0; i < NODES; i++) {
		cc_file_init(&file[i], &(tmem_oid){{i}});
		node[i].fd = fd;
		atomic_store(&node[i].file, &file[i]);
		atomic_store(&node[i].told, CC_TOLD_NOTHING);
		atomic_store(&forgot[i], 0);
		atomic_store(&changed[i], 0);
	}
	atomic_store(&slow, false);
	atomic_store(&hangs, 0);
	atomic_store(&waits, 0);
	atomic_store(&together, 0);
	atomic_store(&forgotten, 0);
	idle = 0;
	atomic_store(&refs, 0);
	atomic_store(&answered, 0);
	atomic_store(&expired, 0);
	assert_int_equal(cc_notify_open(&mount), 0);
}

static void end(void)
{
	cc_notify_close(&mount);
	assert_int_equal(atomic_load(&refs), 0);
	assert_int_equal(atomic_load(&charged), 0);
	for (unsigned i = 0; i < NODES; i++)
		cc_file_destroy(&file[i]);
	close(fd);
}

/* An open finds the file so. */
static void opened(uint64_t size)
{
	file[0].id.size = size;
	file[0].known = true;
	cc_notify_forget(&mount, &node[0]);
}

static bool tells(uint64_t order, uint64_t size)
{
	return cc_notify_tells(&node[0], order, size);
}

/* ---- tests ----------------------------------------------------------------------------- */

static void forgotten_where_another_was_told(void **state)
{
	begin();
	opened(100); /* nothing is known of what it was told */
	assert_int_equal(forgot[0], 1);
	opened(100);
	assert_true(tells(cc_order(), 100));
	opened(100);
	assert_int_equal(forgot[0], 1);
	/* One from before a change, and one after. */
	assert_true(tells(cc_order(), 60));
	opened(100);
	assert_int_equal(forgot[0], 2);
	assert_true(tells(cc_order(), 60));
	assert_true(tells(cc_order(), 100));
	opened(100);
	assert_int_equal(forgot[0], 3);
	/* It grew; and then it is not known how large it is. */
	opened(200);
	assert_int_equal(forgot[0], 4);
	file[0].known = false;
	cc_notify_forget(&mount, &node[0]);
	assert_int_equal(forgot[0], 5);
	assert_int_equal(forgot[1], 0);
	end();
}

static void what_was_asked_before_is_asked_again(void **state)
{
	struct cc_look look;
	uint64_t order;

	begin();
	assert_int_equal(ftruncate(fd, 60), 0);
	assert_int_equal(cc_look_fd(fd, &look), 0);
	order = look.order;
	assert_int_equal(ftruncate(fd, 100), 0);
	opened(100);
	assert_int_equal(cc_notify_tells_look(&node[0], &look), 0);
	assert_int_equal(look.id.size, 100);
	assert_int_equal(look.st.st_size, 100);
	assert_true(look.order > order);
	assert_false(tells(order, 60));
	/* What was asked since is told as it is. */
	assert_int_equal(cc_look_fd(fd, &look), 0);
	order = look.order;
	assert_int_equal(ftruncate(fd, 120), 0);
	assert_int_equal(cc_notify_tells_look(&node[0], &look), 0);
	assert_int_equal(look.order, order);
	assert_int_equal(look.id.size, 100);
	end();
}

static void the_source_is_gone(void **state)
{
	struct cc_look look;

	begin();
	assert_int_equal(cc_look_fd(fd, &look), 0);
	opened(0);
	node[0].fd = -1;
	assert_int_equal(cc_notify_tells_look(&node[0], &look), -EBADF);
	end();
}

static void until(const _Atomic unsigned *count, unsigned n)
{
	for (unsigned i = 0; i < 10000 && atomic_load(count) != n; i++)
		os_sleep_ns(1000000);
	assert_int_equal(atomic_load(count), n);
}

/* The threads that tell are busy with the others. */
static void busy(void)
{
	until(&waits, 0);
	atomic_store(&slow, true);
	for (unsigned i = 1; i < NODES; i++)
		cc_notify_changed(&mount, &node[i]);
	until(&waits, CC_TELLERS);
}

static void changes_are_told_once(void **state)
{
	begin();
	cc_notify_changed(&mount, &node[0]);
	until(&changed[0], 1);
	busy();
	for (unsigned i = 0; i < 10; i++)
		cc_notify_changed(&mount, &node[0]);
	assert_int_equal(atomic_load(&refs), CC_TELLERS + 1);
	/* This one came when it was being told: once more. */
	cc_notify_changed(&mount, &node[1]);
	atomic_store(&slow, false);
	until(&changed[0], 2);
	until(&changed[1], 2);
	end();
	assert_int_equal(atomic_load(&changed[0]), 2);
	assert_int_equal(atomic_load(&changed[1]), 2);
}

static void an_open_spares_it(void **state)
{
	begin();
	busy();
	cc_notify_changed(&mount, &node[0]);
	opened(100);
	cc_notify_changed(&mount, &node[1]); /* after it in the list */
	atomic_store(&slow, false);
	until(&changed[1], 2);
	assert_int_equal(atomic_load(&changed[0]), 0);
	/* But not a change after the open. */
	busy();
	cc_notify_changed(&mount, &node[0]);
	opened(120);
	cc_notify_changed(&mount, &node[0]);
	atomic_store(&slow, false);
	until(&changed[0], 1);
	end();
}

static void nothing_is_told_at_the_end(void **state)
{
	begin();
	busy();
	cc_notify_changed(&mount, &node[0]);
	atomic_store(&slow, false);
	cc_notify_quiet(&mount); /* waits for what is under way */
	cc_notify_changed(&mount, &node[1]);
	end();
	assert_int_equal(atomic_load(&changed[1]), 1);
}

static void answers(void)
{
	struct cc_told *told = cc_told_make(&mount);

	cc_node_ref(&mount, &node[0]);
	told->node = &node[0];
	told->version = file[0].version;
	cc_notify_then_answer(&mount, told);
}

/* F4: by then the kernel has dropped what there was. */
static void answered_when_it_was_told(void **state)
{
	uint64_t version;

	begin();
	assert_false(cc_kernel_is_fresh(&file[0], &version));
	busy();
	answers();
	answers();
	assert_int_equal(atomic_load(&answered), 0);
	atomic_store(&slow, false);
	until(&answered, 2);
	assert_int_equal(atomic_load(&changed_then), 2);
	assert_true(cc_kernel_is_fresh(&file[0], &version));
	/* And also where nothing is told any more. */
	cc_notify_quiet(&mount);
	answers();
	until(&answered, 3);
	assert_int_equal(atomic_load(&changed[0]), 2);
	end();
}

/* T2. As long as a handle that was promised the file as it is has not read. */
static void nothing_is_told_before_a_promise_is_kept(void **state)
{
	struct cc_handle h[2] = {{.node = &node[0]}, {.node = &node[0]}},
			 other = {.node = &node[1]};

	begin();
	cc_handle_reads(&mount, &h[0]); /* nobody has promised anything */
	cc_notify_promise(&mount, &h[0]);
	cc_notify_promise(&mount, &other);
	cc_notify_changed(&mount, &node[0]);
	cc_notify_changed(&mount, &node[2]); /* others are told of meanwhile */
	until(&changed[2], 1);
	cc_handle_reads(&mount, &h[1]);
	cc_handle_reads(&mount, &other);
	os_sleep_ns(100000000);
	assert_int_equal(atomic_load(&changed[0]), 0);
	cc_handle_reads(&mount, &h[0]);
	until(&changed[0], 1);
	/* Of two the later one. */
	cc_notify_promise(&mount, &h[0]);
	cc_notify_promise(&mount, &h[1]);
	cc_notify_changed(&mount, &node[0]);
	cc_handle_reads(&mount, &h[0]);
	os_sleep_ns(100000000);
	assert_int_equal(atomic_load(&changed[0]), 1);
	cc_handle_reads(&mount, &h[1]);
	until(&changed[0], 2);
	/* Who has closed it reads no more. */
	cc_notify_promise(&mount, &h[0]);
	cc_notify_promise(&mount, &h[1]);
	cc_notify_changed(&mount, &node[0]);
	cc_notify_closed(&mount, &h[0]);
	cc_notify_closed(&mount, &other);
	assert_true(atomic_load(&node[0].promise));
	cc_notify_closed(&mount, &h[1]);
	assert_false(atomic_load(&node[0].promise));
	until(&changed[0], 3);
	/* And at the end nothing waits. */
	cc_notify_promise(&mount, &h[0]);
	cc_notify_changed(&mount, &node[0]);
	end();
	assert_int_equal(atomic_load(&changed[0]), 3);
}

/* A lock is told at once, or soon; what comes then waits for a read, whoever makes it. */
static void a_lock_promises_too(void **state)
{
	struct cc_handle h[2] = {{.node = &node[0]}, {.node = &node[0]}};

	begin();
	answers();
	until(&answered, 1);
	assert_int_equal(atomic_load(&changed[0]), 1);
	cc_notify_changed(&mount, &node[0]);
	os_sleep_ns(100000000);
	assert_int_equal(atomic_load(&changed[0]), 1);
	cc_handle_reads(&mount, &h[0]);
	until(&changed[0], 2);
	cc_notify_promise(&mount, &h[1]);
	answers();
	until(&answered, 2);
	assert_true(atomic_load(&node[0].promise));
	end();
}

/* Somebody who opens a file and does not read it holds up what others are to be told for a while.
 */
static void a_promise_does_not_last(void **state)
{
	struct cc_handle h = {.node = &node[0]};
	uint64_t then;

	begin();
	then = os_clock_ns();
	cc_notify_promise(&mount, &h);
	cc_notify_changed(&mount, &node[0]);
	until(&changed[0], 1);
	assert_true(os_clock_ns() - then >= 2 * SECOND);
	/* Nor when it is made again and again. */
	then = os_clock_ns();
	cc_notify_changed(&mount, &node[0]);
	while (os_clock_ns() - then < 30 * SECOND && atomic_load(&changed[0]) == 1) {
		cc_notify_promise(&mount, &h);
		os_sleep_ns(50000000);
	}
	assert_int_equal(atomic_load(&changed[0]), 2);
	end();
}

/* A promise is not made while the kernel is being told; but what hangs there has told it. */
static void a_promise_waits_for_who_tells(void **state)
{
	struct cc_handle h = {.node = &node[0]};
	uint64_t then;

	begin();
	atomic_store(&hangs, (fuse_ino_t)(uintptr_t)&node[0]);
	cc_notify_changed(&mount, &node[0]);
	until(&waits, 1);
	then = os_clock_ns();
	cc_notify_promise(&mount, &h);
	assert_true(os_clock_ns() - then >= 10000000);
	atomic_store(&hangs, 0);
	end();
}

/* Names are waited for, but not for ever; they do not wait for what is behind them. */
static void names_are_told(void **state)
{
	char name[] = "name";

	begin();
	node[0].name = name;
	cc_notify_name(&mount, &node[0]);
	cc_notify_name(&mount, &node[1]); /* it has none */
	cc_notify_names_wait(&mount);
	assert_int_equal(atomic_load(&expired), 1);
	busy();
	cc_notify_name(&mount, &node[0]);
	cc_notify_name(&mount, &node[0]);
	cc_notify_names_wait(&mount);
	assert_int_equal(atomic_load(&expired), 1);
	atomic_store(&slow, false);
	cc_notify_names_wait(&mount);
	assert_int_equal(atomic_load(&expired), 2);
	end();
}

/* T1. One file hangs: what is told of others is told, and nobody else comes to hang there. */
static void a_file_that_hangs_holds_up_none(void **state)
{
	begin();
	atomic_store(&hangs, (fuse_ino_t)(uintptr_t)&node[1]);
	for (unsigned i = 0; i < 5; i++) {
		cc_notify_changed(&mount, &node[1]);
		until(&waits, 1);
	}
	for (unsigned i = 0; i < 2; i++) {
		cc_notify_changed(&mount, &node[0]);
		until(&changed[0], i + 1);
	}
	answers();
	until(&answered, 1);
	cc_notify_name(&mount, &node[2]);
	cc_notify_names_wait(&mount);
	assert_int_equal(atomic_load(&together), 1);
	atomic_store(&hangs, 0);
	until(&changed[1], 2);
	end();
}

/* The first n in folder 1, the others in folder 0; all are idle, and more than there should be. */
static void in_folders(unsigned n)
{
	static char name[] = "name";

	for (unsigned i = 0; i < NODES; i++) {
		node[i].name = name;
		node[i].parent = &folder[i < n];
	}
	atomic_store(&mount.nodes, 10);
	mount.nodes_most = 4;
	idle = NODES;
}

/* And one folder, for names and for trimming, which leaves it out. */
static void a_folder_that_hangs_holds_up_none(void **state)
{
	begin();
	in_folders(3);
	atomic_store(&hangs, (fuse_ino_t)(uintptr_t)&folder[1]);
	for (unsigned i = 0; i < 3; i++)
		cc_notify_name(&mount, &node[i]);
	until(&waits, 1);
	cc_notify_name(&mount, &node[3]);
	until(&expired, 1);
	cc_notify_trim(&mount);
	for (unsigned i = 0; i < 10000 && !atomic_load(&forgotten); i++)
		os_sleep_ns(1000000);
	assert_true(atomic_load(&forgotten) > 0);
	assert_int_equal(atomic_load(&together), 1);
	atomic_store(&hangs, 0);
	until(&expired, 4);
	end();
}

/* Who trims hangs in a folder: when it is asked for again, another one does. */
static void trimming_that_hangs_is_taken_over(void **state)
{
	begin();
	in_folders(1);
	atomic_store(&hangs, (fuse_ino_t)(uintptr_t)&folder[1]);
	cc_notify_trim(&mount);
	until(&waits, 1);
	assert_int_equal(atomic_load(&forgotten), 0);
	for (unsigned i = 0; i < 100 && !atomic_load(&forgotten); i++) {
		cc_notify_trim(&mount);
		os_sleep_ns(100000000); /* as those do who wait for room */
	}
	assert_true(atomic_load(&forgotten) > 0);
	atomic_store(&hangs, 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forgotten_where_another_was_told),
		cmocka_unit_test(what_was_asked_before_is_asked_again),
		cmocka_unit_test(the_source_is_gone),
		cmocka_unit_test(changes_are_told_once),
		cmocka_unit_test(an_open_spares_it),
		cmocka_unit_test(nothing_is_told_at_the_end),
		cmocka_unit_test(answered_when_it_was_told),
		cmocka_unit_test(nothing_is_told_before_a_promise_is_kept),
		cmocka_unit_test(a_lock_promises_too),
		cmocka_unit_test(a_promise_does_not_last),
		cmocka_unit_test(a_promise_waits_for_who_tells),
		cmocka_unit_test(names_are_told),
		cmocka_unit_test(a_file_that_hangs_holds_up_none),
		cmocka_unit_test(a_folder_that_hangs_holds_up_none),
		cmocka_unit_test(trimming_that_hangs_is_taken_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
