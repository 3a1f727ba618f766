/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel is told: an open tells it to forget sizes only where it was told another one
 * (S1); what was asked before that is asked again (S2); changes are told once, and not where an
 * open did.
 */
#include "cleancache/cleancache.h"
#include "os/clock.h"
#include "os/thread.h"

#include "tmem_test.h"

#include <unistd.h>

#define SECOND 1000000000ll

static struct cc_mount mount;
static struct cc_node root, node[2];
static struct cc_file file[2];
static int fd;

/* ---- the kernel, and nodes ------------------------------------------------------------ */

static _Atomic unsigned forgot[2], changed[2]; /* what it was told of each node */
static _Atomic bool slow, waits;	       /* it keeps who tells it of a change waiting */

int fuse_lowlevel_notify_inval_inode(struct fuse_session *se, fuse_ino_t ino, off_t off, off_t len)
{
	unsigned i = ino == (fuse_ino_t)(uintptr_t)&node[1];

	if (off < 0) {
		atomic_fetch_add(&forgot[i], 1);
		return 0;
	}
	atomic_fetch_add(&changed[i], 1);
	while (atomic_load(&slow)) {
		atomic_store(&waits, true);
		os_sleep_ns(1000000);
	}
	return 0;
}

static _Atomic unsigned expired;

int fuse_lowlevel_notify_expire_entry(struct fuse_session *se, fuse_ino_t parent, const char *name,
				      size_t bytes
#ifdef TMEM_FUSE_EXPIRE_FLAGS
				      ,
				      enum fuse_expire_flags flags
#endif
)
{
	assert_int_equal(bytes, strlen(name));
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

unsigned cc_nodes_idle(struct cc_mount *m, struct cc_node **out, unsigned max, bool folders)
{
	return 0;
}

bool cc_node_name(struct cc_mount *m, struct cc_node *n, char *name, size_t room,
		  struct cc_node **parent)
{
	if (!n->name)
		return false;
	snprintf(name, room, "%s", n->name);
	*parent = &root;
	cc_node_ref(m, &root);
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
	for (unsigned i = 0; i < 2; i++) {
		cc_file_init(&file[i], &(tmem_oid){{i}});
		node[i].fd = fd;
		atomic_store(&node[i].file, &file[i]);
		atomic_store(&node[i].told, CC_TOLD_NOTHING);
		atomic_store(&forgot[i], 0);
		atomic_store(&changed[i], 0);
	}
	atomic_store(&slow, false);
	atomic_store(&waits, false);
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
	for (unsigned i = 0; i < 2; i++)
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
	for (unsigned i = 0; i < 10000 && atomic_load(count) < n; i++)
		os_sleep_ns(1000000);
	assert_int_equal(atomic_load(count), n);
}

/* The thread that tells is busy with the other one. */
static void busy(void)
{
	atomic_store(&slow, true);
	atomic_store(&waits, false);
	cc_notify_changed(&mount, &node[1]);
	for (unsigned i = 0; i < 10000 && !atomic_load(&waits); i++)
		os_sleep_ns(1000000);
	assert_true(atomic_load(&waits));
}

static void changes_are_told_once(void **state)
{
	begin();
	cc_notify_changed(&mount, &node[0]);
	until(&changed[0], 1);
	busy();
	for (unsigned i = 0; i < 10; i++)
		cc_notify_changed(&mount, &node[0]);
	assert_int_equal(atomic_load(&refs), 2);
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
		cmocka_unit_test(names_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
