/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cleancache: `tmem mount`, a FUSE file system over a folder that keeps the clean pages it has
 * read in an ephemeral pool.
 *
 * Words. The *source* is the folder that is mounted over, and the files in it. A *node* is a file
 * (of any type) of the source that the kernel knows by a number. A *file* is what is known of a
 * regular node's data: its identity and what happens to it. A *handle* is a file that a program
 * has open. Pool = this mount, object = file, index = page of 4096 bytes.
 *
 *   kernel's page cache        hot, not compressed; as long as the kernel likes
 *     └─ store (libtmem)       what was read lately, compressed; never above --size
 *          └─ source           slow
 *
 * A page is put when it is read from the source, and stays when the kernel asks for it again: the
 * kernel does not say when it drops its own. What is in both is small in ours.
 *
 * Coherence (file.c holds it together, identity.c says when two looks saw the same data):
 *
 *   C1  a page in the store was read from the source after the last change that this mount made
 *       to it, and while no such change was under way
 *   C2  a page in the store was read while its file had the identity that the file has now, as
 *       far as the source told; when it turns out to have another, all of them go before
 *       anything else is answered
 *   C3  what was read under an identity too young to be told from the next one serves until the
 *       next look at the source and no longer
 *
 * Locks, outermost first: an open folder; the watches; names; a shard of the nodes' table; a file;
 * identities; the account. But for the folder's, none is held while the source is asked, and none
 * while the kernel is told something.
 */
#ifndef TMEM_CLEANCACHE_CLEANCACHE_H
#define TMEM_CLEANCACHE_CLEANCACHE_H

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)

#include "os/lock.h"
#include "os/thread.h"

#include <fuse3/fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <tmem/tmem.h>

#include "cleancache/mount.h"
#include "cleancache/order.h"

#define CC_PAGE	    TMEM_PAGE_SIZE
#define CC_IO_PAGES 64u /* of one request of the kernel, and of one read of the source */
#define CC_IO_BYTES (CC_IO_PAGES * CC_PAGE)
#define CC_SHARDS   64u
#define CC_NAME	    "tmem-mount" /* of the main thread, and so of libfuse's */

struct cc_mount;

/* ---- identity.c ------------------------------------------------------------------------- */

/* What tells the data that a file had from the data that it has. */
struct cc_identity {
	uint64_t size;
	int64_t mtime_ns, ctime_ns; /* since 1970; ns of the source, whatever its grain */
};

/* One look at the source. */
struct cc_look {
	struct stat st;
	struct cc_identity id;
	int64_t born_ns;  /* 0: the source does not say */
	int64_t taken_ns; /* our wall clock, read before the source was asked; */
	uint64_t at_ns;	  /* and the other one */
	uint64_t order;	  /* cc_order() of then */
	bool automount;	  /* a folder that something is mounted on when it is used */
};

/* Larger each time: what came before what. */
uint64_t cc_order(void);
/* fd: a file of the source, O_PATH will do. 0 or -errno. Asks the source. */
int cc_look_fd(int fd, struct cc_look *look) __attribute__((warn_unused_result));
/*
 * The look of an open. Where the source is another FUSE file system (`fuse`), opening a file there
 * does not bring its attributes up to date: they are asked for past what its kernel has kept.
 */
int cc_look_open(int fd, bool fuse, struct cc_look *look) __attribute__((warn_unused_result));
/* The same of a name in a folder; links are not followed. */
int cc_look_at(int dir, const char *name, struct cc_look *look) __attribute__((warn_unused_result));
/* The device of what is there, or mounted there, which is not asked itself; 0: it is not known. */
uint64_t cc_device_of(int dir, const char *name);
bool cc_identity_same(const struct cc_identity *a, const struct cc_identity *b);
/*
 * Whether a change made after this look would have given the file another identity. It would not
 * while the source's clock may still show what it showed at the last change.
 */
bool cc_look_is_settled(const struct cc_look *look, uint64_t grain_ns);
#define CC_GRAIN_FAR_NS 2000000000ull /* where the clock is another machine's */
/* The grain to reckon with for the file system that fd is on, ns. */
uint64_t cc_grain_ns(int fd);
/* The same for what was looked at in a mount's source. */
uint64_t cc_grain_of(const struct cc_mount *m, const struct cc_look *look);
/* A number for this file that the next one with its inode number does not have, as far as told. */
uint64_t cc_incarnation(int fd, const struct cc_look *look);
/* On a FUSE file system; false, too, where there is no telling. Asks the source. */
bool cc_is_fuse(int fd);
/* The inode number to be shown: what is mounted within the source has numbers of its own. */
ino_t cc_shown_ino(const struct cc_mount *m, const struct stat *st);

/* ---- file.c ----------------------------------------------------------------------------- */

/* A run of pages that somebody is reading from the source. */
struct cc_fetch {
	uint64_t first, n;
	struct cc_fetch *next;
};

/* Made when a regular file is first opened, gone with its node. */
struct cc_file {
	struct os_mutex lock;
	struct os_cond idle; /* puts or fetches have ended */
	tmem_oid oid;
	struct cc_identity id;
	uint64_t looked_ns;	    /* clock of the last look that said id */
	bool known;		    /* id says something: there was a look, and no change since */
	bool young;		    /* that look was not settled (C3) */
	uint64_t order, ours_order; /* of the last change of id, of ours: older looks are late */
	bool unsure;		    /* known is false, and the next look tells (F6) */
	uint32_t ours_now;	    /* changes through the mount that are under way */
	uint32_t writers;	    /* handles that are open for writing */
	uint32_t changing;	    /* those, and drops, under way: no puts */
	uint32_t putting;	    /* threads in between cc_put_begin() and cc_put_end() */
	uint64_t changes;	    /* begun and ended */
	bool stored;		    /* a page was put */
	bool adopted;		    /* it was known from before */
	bool passing;	 /* its name in the store does not outlive the source's process */
	bool forgetting; /* the kernel is being told to forget its attributes */
	uint64_t version, confirmed; /* times that pages went; up to which the kernel's have, too */
	struct cc_fetch *fetches;
	/* For statistics; pages. */
	_Atomic uint64_t hits, misses, ahead, refused;
	_Atomic uint64_t drops; /* times that its pages went as another identity was seen */
};

void cc_file_init(struct cc_file *f, const tmem_oid *oid);
void cc_file_destroy(struct cc_file *f);

/* Why the source was asked. */
enum cc_why {
	CC_ASKED,  /* for attributes */
	CC_TOLD,   /* there was a change */
	CC_OPENED, /* an open, or a lock: what could have changed unseen is not believed (C3) */
};
/*
 * What a look said: when the file is not what it was (C2), or could not be told from it (C3), its
 * pages go. True: they did, and the kernel's are to go, too.
 */
bool cc_file_seen(struct cc_mount *m, struct cc_file *f, const struct cc_look *look,
		  enum cc_why why);
/* F4. Whether an open may keep the kernel's pages; version: what its handle confirms if not. */
bool cc_kernel_is_fresh(struct cc_file *f, uint64_t *version);
void cc_kernel_has_dropped(struct cc_file *f, uint64_t version);

/*
 * A change of ours to the data: all pages of the file go, and none come into it until it ends.
 * Takes what puts that are under way take.
 */
void cc_change_begin(struct cc_mount *m, struct cc_file *f);
void cc_change_end(struct cc_mount *m, struct cc_file *f);
/* All pages go, of a file that we do not change. */
void cc_file_forget(struct cc_mount *m, struct cc_file *f);
/* F6. A handle for writing was opened, or closed. True: it was the last, and the next look tells.
 */
void cc_writer_comes(struct cc_file *f);
bool cc_writer_goes(struct cc_file *f);
bool cc_has_writers(struct cc_file *f);

/* Drawn before the store and the source are read. */
struct cc_view {
	uint64_t changes; /* what cc_put_begin() wants to know again */
	uint64_t size;	  /* of the file, as far as pages in the store go; 0: it has none */
};
struct cc_view cc_view(struct cc_file *f);
/* False: the file changed since, what was read may be old. Else cc_put_end() follows. */
bool cc_put_begin(struct cc_file *f, uint64_t changes);
void cc_put_end(struct cc_file *f);

/*
 * Pages first .. first+n-1 are not in the store, or were not: a run of them that begins at `first`
 * is this thread's to read from the source. 0: somebody had the first of them, and has ended: look
 * again. Else so many pages, until cc_fetch_end(). Waits.
 */
uint64_t cc_fetch_begin(struct cc_file *f, struct cc_fetch *fetch, uint64_t first, uint64_t n);
void cc_fetch_end(struct cc_file *f, struct cc_fetch *fetch);

/* ---- store.c ---------------------------------------------------------------------------- */

/* By what their pages cost to have again. */
enum cc_pool {
	CC_STREAMED,
	CC_COSTLY,
	CC_POOLS,
};

/* The mount's client is there. 0, or -errno. */
int cc_store_open(struct cc_mount *m) __attribute__((warn_unused_result));
/* A client that was restored, with the pools that this one was saved with, in place of the mount's.
 */
void cc_store_take(struct cc_mount *m, tmem_client *client, const tmem_pool_pair *pool);
/* A page and those that are stored with it, as tmem_get_cluster() has them. False: it is not there.
 */
bool cc_store_get(struct cc_mount *m, const tmem_oid *oid, uint64_t index, void *pages,
		  uint64_t *first, uint32_t *mask);
/*
 * n pages that were missing of a read of so many; between cc_put_begin() and cc_put_end(). How
 * many were refused.
 */
unsigned cc_store_put(struct cc_mount *m, const tmem_oid *oid, uint64_t index, unsigned n,
		      const char *pages, unsigned asked);
/* All pages of the file go. Whether there were any. */
bool cc_store_drop(struct cc_mount *m, const tmem_oid *oid);

/* ---- node.c ----------------------------------------------------------------------------- */

struct cc_node {
	struct cc_node *hash_next;
	uint64_t dev, ino;
	int64_t born_ns;
	uint64_t incarnation;
	uint64_t lookups;	    /* that the kernel has not forgotten; under the shard's lock */
	uint32_t refs;		    /* ours; the same */
	bool stale;		    /* its number is another file's now; the same */
	_Atomic bool linked;	    /* it was seen to have several names */
	_Atomic bool writable;	    /* it was opened for writing */
	_Atomic uint32_t opens;	    /* handles */
	_Atomic bool replaced;	    /* its handles are perhaps not of the file that has its name */
	_Atomic pid_t sent_back;    /* who was to look its name up again, last */
	_Atomic uint64_t way_ns;    /* a folder: until then the kernel may not ask for it (way.c) */
	bool used;		    /* since the trimmer came by; the same */
	bool fuse;		    /* the source has it on a FUSE file system */
	bool automount;		    /* the source mounts something on it when it is used */
	mode_t type;		    /* S_IFMT */
	int fd;			    /* O_PATH */
	int watch;		    /* of watch.c; -1: none */
	struct cc_node *watch_next; /* watch.c */
	struct cc_node *notify_next; /* notify.c */
	bool to_tell;		     /* it is in that list */
	bool told_by_open;	     /* and need not be any more */
	_Atomic uint64_t promise;    /* T2 in notify.c: the last one, while it is not kept; 0 */
	bool promised_to_any;	     /* who reads first keeps it; these three are notify.c's */
	uint64_t promised_ns, promised_since_ns;
	struct cc_node *name_next; /* notify.c */
	bool name_to_tell;	   /* it is in that list */
	_Atomic(struct cc_file *) file;
	_Atomic uint64_t opened; /* when an open last found a change; cc_order() */
	_Atomic uint64_t told;	 /* the size that the kernel was told (S1 in notify.c), or */
#define CC_TOLD_NOTHING UINT64_MAX
#define CC_TOLD_SEVERAL (UINT64_MAX - 1)
	struct cc_identity listed; /* a folder, when the listing that the kernel has was begun */
	bool is_listed;		   /* it was settled then; these three are ops_dir.c's */
	uint32_t listing;	   /* open handles whose listing the kernel may keep */
	struct cc_node *parent;	   /* a ref; NULL: the root */
	char *name; /* in it, when it was last seen; both under the mount's `names` */
};

struct cc_shard {
	struct os_mutex lock;
	struct cc_node **bucket;
	uint32_t buckets, nodes; /* buckets: 2^n */
	uint32_t hand;		 /* of the trimmer */
	uint64_t reborn;	 /* nodes made beside a stale one */
};

/* ---- the rest of a mount ---------------------------------------------------------------- */

/* What is open. fi->fh points to one. */
struct cc_handle {
	struct cc_node *node; /* a ref */
	int fd;
	bool direct;	       /* O_DIRECT: past the store */
	bool writes;	       /* open for writing */
	_Atomic bool locks;    /* an owner of locks was first named through it */
	uint64_t version;      /* F4 */
	_Atomic bool confirms; /* its first request says that the kernel has dropped its pages */
	uint64_t promise;      /* of notify.c; 0: none was made to it */
	_Atomic uint32_t refs; /* its opener, and reads ahead */
	/* The last read's end, and how far ahead of it was read: races only cost a read ahead. */
	_Atomic uint64_t next, ahead;
	_Atomic uint32_t window; /* pages; 0: not in order */
};

/* A thread that was sent back, because of which folder (no ref), and how often on end (way.c). */
struct cc_turned {
	_Atomic pid_t who;
	const struct cc_node *at;
	unsigned times, most;
	uint64_t stands_ns; /* until then it is not */
};
#define CC_TURNED 64u

struct cc_account {
	struct os_mutex lock;
	uint64_t size;	/* --size */
	uint64_t fixed; /* what the process takes without a node, buffers of all threads included */
	_Atomic uint64_t used; /* nodes, files, handles */
	uint64_t granted;      /* the store's limit leaves room for so much `used` */
	uint64_t most;	       /* used, since it was given back */
	bool giving;	       /* a thread gives back what was freed */
};

enum cc_counter {
	CC_READS,	  /* requests of the kernel */
	CC_READ_BYTES,	  /* answered */
	CC_HITS,	  /* pages found in the store */
	CC_MISSES,	  /* pages read from the source because they were asked for */
	CC_AHEAD,	  /* pages read ahead */
	CC_SOURCE_READS,  /* calls */
	CC_SOURCE_BYTES,  /* they brought */
	CC_SOURCE_ERRORS, /* that failed */
	CC_REFUSED,	  /* pages that the store did not take */
	CC_STALE,	  /* pages not put because the file changed while they were read */
	CC_DROPS,	  /* files whose pages went because the source had others */
	CC_YOUNG_DROPS,	  /* or might have had */
	CC_LOOKUPS,	  /* names that the kernel asked for, one at a time */
	CC_ASTRAY,	  /* and was sent back from, to go its way again (way.c) */
	CC_OPENS,
	CC_OPENS_KEPT, /* and those of them after which the kernel kept its pages */
	CC_WRITES,
	CC_WRITE_BYTES,
	CC_INVALIDATIONS, /* told by watching, or by `tmem invalidate` */
	CC_TRIMMED,	  /* names that the kernel was asked to forget */
	CC_DAMAGED,	  /* pages of the store with a wrong checksum; read from the source then */
	CC_COUNTERS,
};

struct cc_mount {
	const struct cc_options *o;
	struct fuse_session *se;
	tmem_host *host;
	tmem_client *client;
	tmem_pool pool[CC_POOLS];
	struct cc_account account;
	struct os_mutex names; /* of all nodes, and whose they are */
	struct cc_shard shard[CC_SHARDS];
	struct cc_node *root;
	struct stat root_attr; /* at the beginning */
	uint64_t grain_ns;
	_Atomic uint64_t own_dev; /* of the mount itself; 0: not known yet */
	const char *point;	  /* the mount point's name, and its folder; NULL: not known */
	uint64_t point_dev, point_ino;
	double entry_s, attr_s; /* how long the kernel may trust a name, attributes */
	unsigned threads;
	bool served;	    /* what it holds is worth something */
	bool as_root;	    /* others may be callers: what they make is theirs */
	_Atomic bool twins; /* names were looked up below .tmem/files */
	_Atomic uint64_t nodes, nodes_max, handles;
	uint64_t nodes_most; /* descriptors and memory allow so many */
	_Atomic uint64_t counter[CC_COUNTERS];
	struct cc_crew *crew; /* ahead.c */
	/* notify.c; a signal may ask for it before it is there */
	_Atomic(struct cc_notify *) notify;
	struct cc_lockers *lockers; /* locks.c */
	struct cc_watch *watch;	    /* watch.c; NULL: none */
	struct cc_end *end;	    /* end.c */
	pid_t guard;		    /* guard.c */
	int guard_fd;		    /* -1: none */
	struct cc_known *known;	    /* known.c */
	struct cc_turned turned[CC_TURNED];
	os_tls scratch;		   /* read.c: a thread's buffer */
	_Atomic bool no_dontcache; /* the source's kernel does not know RWF_DONTCACHE */
};

/* The mount that a request is for: what every operation begins with (order.h). */
static inline struct cc_mount *cc_mount_of(fuse_req_t req)
{
	struct cc_mount *m = fuse_req_userdata(req);

	CC_ORDER_ASKED(m);
	return m;
}

static inline void cc_count(struct cc_mount *m, enum cc_counter k, uint64_t n)
{
	atomic_fetch_add_explicit(&m->counter[k], n, memory_order_relaxed);
}

/*
 * end.c. From open to close, a signal that tells the process to end takes the mount point away and
 * ends the session; the calling thread is the one that serves it. 0, or -errno and nothing is done.
 */
int cc_end_open(struct cc_mount *m, const char *point) __attribute__((warn_unused_result));
void cc_end_close(struct cc_mount *m);
/* Takes a mount away from its place, whoever uses it. 0, or -EPERM. Forks where it must. */
int cc_detach(const char *point) __attribute__((warn_unused_result));

/*
 * guard.c: a process that ends the connection of this number (0: not any more) when we are killed.
 * It is forked by open, so before there are threads. Close waits for its end.
 */
void cc_guard_open(struct cc_mount *m);
void cc_guard_watch(struct cc_mount *m, uint32_t number);
void cc_guard_close(struct cc_mount *m);

/* account.c: memory that is not the store's. False: --size does not allow it. */
bool cc_charge(struct cc_mount *m, uint64_t bytes) __attribute__((warn_unused_result));
void cc_uncharge(struct cc_mount *m, uint64_t bytes);
void cc_account_verify(struct cc_mount *m);
/* Sets the store's limit for the first time. -EINVAL: nothing would be left for it. */
int cc_account_open(struct cc_mount *m, uint64_t fixed) __attribute__((warn_unused_result));

/* The node of a number that the kernel gave; it keeps it alive meanwhile. */
static inline struct cc_node *cc_node_of(struct cc_mount *m, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? m->root : (struct cc_node *)(uintptr_t)ino;
}
static inline fuse_ino_t cc_ino_of(const struct cc_mount *m, const struct cc_node *n)
{
	return n == m->root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)n;
}
/* What has its figures, below .tmem/files: no node has an odd number. */
static inline fuse_ino_t cc_twin_of(const struct cc_node *n)
{
	return (fuse_ino_t)(uintptr_t)n | 1;
}
int cc_nodes_open(struct cc_mount *m, int root_fd) __attribute__((warn_unused_result));
/* All of them, whatever is counted: nobody asks any more. */
void cc_nodes_close(struct cc_mount *m);
/*
 * The node of a name, made if it is new, with one lookup more, and a look at it. 0; -ENOENT and
 * the like: the source's; -ENOMEM: --size; -ENFILE: descriptors.
 */
int cc_node_lookup(struct cc_mount *m, struct cc_node *dir, const char *name, struct cc_node **out,
		   struct cc_look *look) __attribute__((warn_unused_result));
/*
 * Before a folder is used: what the source mounts on it is mounted. -ESTALE: it is another folder
 * now, which the kernel finds when it looks its name up again; other errors: the source's.
 */
int cc_node_automount(struct cc_mount *m, struct cc_node *n) __attribute__((warn_unused_result));
void cc_node_forget(struct cc_mount *m, struct cc_node *n, uint64_t lookups);
/* The source does not know its file any more (ESTALE): the next lookup finds another one. */
void cc_node_stale(struct cc_mount *m, struct cc_node *n);
/*
 * Whether a look may have seen another file by this number, while there are more handles than
 * `mine`, which are the old one's; see node.c.
 */
bool cc_node_is_replaced(struct cc_node *n, const struct cc_look *look, uint32_t mine);
/* The same; it is not found any more then. */
void cc_node_check(struct cc_mount *m, struct cc_node *n, const struct cc_look *look,
		   uint32_t mine);
void cc_node_ref(struct cc_mount *m, struct cc_node *n);
void cc_node_unref(struct cc_mount *m, struct cc_node *n);
/* The node of a name if the kernel knows it, with a ref; no new one is made. NULL: it is not. */
struct cc_node *cc_node_find(struct cc_mount *m, struct cc_node *dir, const char *name);
/*
 * What opening something has ended with: a descriptor, or -errno. Where there are no more of them,
 * names are trimmed, and it is -ENFILE: it is not who asks that has too many.
 */
int cc_opened(struct cc_mount *m, int rc) __attribute__((warn_unused_result));
/* The same of a node that may be on its way out: false, then. */
bool cc_node_try_ref(struct cc_mount *m, struct cc_node *n);
/*
 * A node that is no file's, with a ref: it is never found, and lives as long as somebody has a ref.
 * It has a name in a folder, which cc_notify_name() takes from it. NULL: --size.
 */
struct cc_node *cc_node_of_name(struct cc_mount *m, struct cc_node *dir, const char *name);
/* Made at the first call; NULL: --size. */
struct cc_file *cc_node_file(struct cc_mount *m, struct cc_node *n);
/* Its file, or NULL. */
static inline struct cc_file *cc_node_data(struct cc_node *n)
{
	return atomic_load_explicit(&n->file, memory_order_acquire);
}
/* So many that they are trimmed. */
static inline bool cc_nodes_many(struct cc_mount *m)
{
	return atomic_load(&m->nodes) >= m->nodes_most / 4 * 3;
}
/* Called for each node, with a ref, no lock held; not 0 ends it. */
int cc_nodes_each(struct cc_mount *m, int (*fn)(void *arg, struct cc_node *n), void *arg);
/* N1, N2, the identities' table, and M1; while nothing runs. Stops the process (checks >= 1). */
void cc_verify(struct cc_mount *m);
void cc_nodes_verify(struct cc_mount *m);
/*
 * At most max nodes that the kernel may be asked to forget, each with a ref: not used since the
 * last time. folders: those of folders, too, once nothing in them is known; else the others alone.
 */
unsigned cc_nodes_idle(struct cc_mount *m, struct cc_node **out, unsigned max, bool folders);

/* way.c. For how long the kernel may go by the name that was just looked up, s. */
double cc_way_trust(struct cc_mount *m, struct cc_node *n);
/* It may not, after all: who looked it up sees more than we do. */
void cc_way_distrust(struct cc_mount *m, struct cc_node *n, struct fuse_entry_param *e);
/*
 * W1: whether the kernel may have come to a folder by what is not its way any more, to look for
 * `name` there (NULL: for itself). -ESTALE: it did, and is to go again. Asks the source.
 */
int cc_way_check(fuse_req_t req, struct cc_node *dir, const char *name)
	__attribute__((warn_unused_result));

/* names.c. It is called so now, by a rename of ours. */
void cc_node_renamed(struct cc_mount *m, struct cc_node *n, struct cc_node *dir, const char *name);
/* A lookup has found it under this name, which it may have got without us. */
void cc_node_called(struct cc_mount *m, struct cc_node *n, struct cc_node *dir, const char *name);
/* Its name of now, and its folder with a ref (NULL: the root). False: longer than room. */
bool cc_node_name(struct cc_mount *m, struct cc_node *n, char *name, size_t room,
		  struct cc_node **parent);
/* Whether a folder is above it, or is it, by the names that were seen last; of several names one
 * may be there. */
bool cc_node_is_under(struct cc_mount *m, struct cc_node *n, struct cc_node *dir);

/* known.c: identities of files whose pages are in the store and whose nodes have gone. */
int cc_known_open(struct cc_mount *m) __attribute__((warn_unused_result));
void cc_known_close(struct cc_mount *m);
/* Its node leaves its table, whose lock is held: the identity stays while there is room. */
void cc_known_keep(struct cc_mount *m, const struct cc_file *f);
/* A file as it was known before, if it was; its identity is the file's alone from then on. */
void cc_known_adopt(struct cc_mount *m, struct cc_file *f);
/* All go; of nodes that leave their table until the end none stays. */
void cc_known_drop_begin(struct cc_mount *m);
void cc_known_drop_end(struct cc_mount *m);
void cc_known_verify(struct cc_mount *m);
/* From a file. */
void cc_known_add(struct cc_mount *m, const tmem_oid *oid, const struct cc_identity *id);
/* While nothing runs; not 0 ends it. */
int cc_known_each(struct cc_mount *m,
		  int (*fn)(void *arg, const tmem_oid *oid, const struct cc_identity *id),
		  void *arg);

/* warm.c: to and from --save. While nothing runs. Say on the log what went wrong. -EINVAL: the file
 * is none of these, and should not become one. */
int cc_warm_save(struct cc_mount *m);
int cc_warm_load(struct cc_mount *m);

/* /proc/self/fd/N, which names a file that is open by O_PATH. */
#define CC_FD_PATH 32
const char *cc_fd_path(char buf[CC_FD_PATH], int fd);

/*
 * read.c. Bytes from offset on, fewer at the end of the file, or -errno; *data points to them in
 * a buffer of this thread, until its next call. bytes: at most CC_IO_BYTES. When they have been
 * used, by cc_read_end(), pages from the source go into the store: until then there has to be a ref
 * of the handle.
 */
ssize_t cc_read(struct cc_mount *m, struct cc_handle *h, uint64_t offset, size_t bytes,
		const char **data);
void cc_read_end(struct cc_mount *m);
/* CC_IO_BYTES, the thread's own until it reads. NULL: no memory. */
char *cc_scratch(struct cc_mount *m);
/*
 * Pages first .. first+n-1, at most CC_IO_PAGES, into the store, if they are not there. False: all
 * of them were.
 */
bool cc_read_ahead(struct cc_mount *m, struct cc_handle *h, uint64_t first, unsigned n);

/* ahead.c */
int cc_crew_open(struct cc_mount *m, unsigned threads) __attribute__((warn_unused_result));
void cc_crew_close(struct cc_mount *m);
/* A read of pages first .. first+n-1, of which so many were missed, of a file of `size` bytes. */
void cc_ahead(struct cc_mount *m, struct cc_handle *h, uint64_t first, unsigned n, uint64_t size,
	      unsigned missed);

/* ops_open.c: handles. fd is the handle's from then on, unless it fails: -ENOMEM. */
int cc_handle_make(struct cc_mount *m, struct cc_node *n, int fd, struct fuse_file_info *fi)
	__attribute__((warn_unused_result));
void cc_handle_put(struct cc_mount *m, struct cc_handle *h);
static inline struct cc_handle *cc_handle_of(const struct fuse_file_info *fi)
{
	return (struct cc_handle *)(uintptr_t)fi->fh;
}
/* A request has come by it: called by those that come first. */
static inline void cc_handle_used(struct cc_handle *h)
{
	if (atomic_load_explicit(&h->confirms, memory_order_relaxed) &&
	    atomic_exchange(&h->confirms, false))
		cc_kernel_has_dropped(cc_node_data(h->node), h->version);
}
/* The look that an open is made of (ops_open.c): 0, and whether the kernel may keep its pages. */
int cc_handle_look(struct cc_mount *m, struct cc_handle *h, bool *kept)
	__attribute__((warn_unused_result));
/* What the source is opened with where the caller asked for `flags`. */
int cc_open_flags(int flags);
/*
 * Before a change that the kernel leaves it to us to take set-user-id bits and capabilities away
 * for: ours as root would keep them. Of a caller who is not root, on an open file.
 */
void cc_drop_privileges(struct cc_mount *m, fuse_req_t req, int fd);

/*
 * caller.c. Between them the thread is, for the source, who asks; one call apart from opening,
 * making or changing what is meant. begin: 0 or -errno, and then there is nothing to end.
 */
#define CC_GROUPS_MAX 256
struct cc_caller {
	bool became;
	int groups; /* of ours, before */
	gid_t group[CC_GROUPS_MAX];
};
int cc_caller_begin(struct cc_mount *m, fuse_req_t req, struct cc_caller *c)
	__attribute__((warn_unused_result));
void cc_caller_end(struct cc_caller *c);
#define CC_CALLER                                                                                  \
	{                                                                                          \
		.became = false                                                                    \
	}
/*
 * After a call that ended with rc: true, to make it again as who asks, where the source has refused
 * it to us. After that one: false, and the thread is itself. c begins as CC_CALLER.
 */
bool cc_caller_again(struct cc_mount *m, fuse_req_t req, int rc, struct cc_caller *c)
	__attribute__((warn_unused_result));
/*
 * What callers write we write, and quotas do not hold for who may exceed them: root may not any
 * more. Before there are threads.
 */
void cc_caller_quotas(void);

/* locks.c */
int cc_locks_open(struct cc_mount *m) __attribute__((warn_unused_result));
void cc_locks_close(struct cc_mount *m);
/* An owner has closed a descriptor of this file: its locks go. */
void cc_locks_closed(struct cc_mount *m, struct cc_node *n, uint64_t owner);
/* The same for a handle that is released: owners that came by it. */
void cc_locks_released(struct cc_mount *m, struct cc_handle *h);

/* control.c: figures as text. */
void cc_text_mount(struct cc_mount *m, char *buf, size_t room);
void cc_text_file(struct cc_mount *m, struct cc_node *n, char *buf, size_t room);

/* notify.c: what the kernel is told, by threads of its own. */
#define CC_TELLERS 4u
int cc_notify_open(struct cc_mount *m) __attribute__((warn_unused_result));
void cc_notify_close(struct cc_mount *m);
/* The kernel's pages and attributes of a node are to go. */
void cc_notify_changed(struct cc_mount *m, struct cc_node *n);
/*
 * The kernel's pages and attributes of a node go; then the request is answered, with 0. For who
 * must not go on before, and may not tell it himself.
 */
struct cc_told {
	struct cc_told *next;
	struct cc_node *node; /* a ref */
	uint64_t version;     /* F4: what the kernel has dropped then */
	fuse_req_t req;
	uint64_t asked_ns;
};
/* Charged. NULL: --size. */
struct cc_told *cc_told_make(struct cc_mount *m);
void cc_told_free(struct cc_mount *m, struct cc_told *told);
/* Takes it over. */
void cc_notify_then_answer(struct cc_mount *m, struct cc_told *told);
/*
 * The kernel is to look its name up again, which may be another file's by now; and what it knows of
 * a folder is to go.
 */
void cc_notify_name(struct cc_mount *m, struct cc_node *n);
/* Returns when it was told of the names so far; or soon, where it waits itself for a folder. */
void cc_notify_names_wait(struct cc_mount *m);
/*
 * S2. Before each answer that tells the kernel a size, which was asked for at `order`. False: it is
 * too old, and must be asked for again.
 */
bool cc_notify_tells(struct cc_node *n, uint64_t order, uint64_t size)
	__attribute__((warn_unused_result));
/* The same of a look, which it makes anew where it is too old. 0, or -errno. */
int cc_notify_tells_look(struct cc_node *n, struct cc_look *look)
	__attribute__((warn_unused_result));
/*
 * S1. An open has found a change: the kernel forgets a size from before. Waits while another open
 * of the node tells it so.
 */
void cc_notify_forget(struct cc_mount *m, struct cc_node *n);
/*
 * T2. A handle that is about to be answered is to see the file as it is: nothing is told of that
 * file until it has read. Waits for what is being told of it, for 20 ms at most.
 */
void cc_notify_promise(struct cc_mount *m, struct cc_handle *h);
/* A read has come by it: where there is a promise, it may have been kept. */
void cc_notify_kept_promise(struct cc_mount *m, struct cc_handle *h);
static inline void cc_handle_reads(struct cc_mount *m, struct cc_handle *h)
{
	if (atomic_load_explicit(&h->node->promise, memory_order_relaxed))
		cc_notify_kept_promise(m, h);
}
/* Nobody will read by this handle any more. */
void cc_notify_closed(struct cc_mount *m, struct cc_handle *h);
/* The kernel is told nothing more, from the return on. Waits for what is being told. */
void cc_notify_quiet(struct cc_mount *m);
/* Too many nodes, or too little memory for them. */
void cc_notify_trim(struct cc_mount *m);

/* watch.c */
int cc_watch_open(struct cc_mount *m) __attribute__((warn_unused_result));
void cc_watch_close(struct cc_mount *m);
void cc_watch_node(struct cc_mount *m, struct cc_node *n);
void cc_unwatch_node(struct cc_mount *m, struct cc_node *n);
/* What was told until now has been looked at when it returns; or it has waited for a while. */
void cc_watch_catch_up(struct cc_mount *m);

/* virtual.c, and behind it ops_*.c, locks.c, control.c: what FUSE calls. */
extern const struct fuse_lowlevel_ops cc_ops;
/* The name of our folder. A source may have it as well: it cannot be reached then, nor is it
 * listed. */
bool cc_is_control(fuse_req_t req, fuse_ino_t in, const char *name);
void cc_init(void *arg, struct fuse_conn_info *conn);
void cc_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void cc_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void cc_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void cc_symlink(fuse_req_t req, const char *to, fuse_ino_t parent, const char *name);
void cc_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void cc_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void cc_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void cc_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	       const char *newname, unsigned flags);
void cc_readlink(fuse_req_t req, fuse_ino_t ino);
void cc_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cc_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		struct fuse_file_info *fi);
void cc_access(fuse_req_t req, fuse_ino_t ino, int mask);
void cc_statfs(fuse_req_t req, fuse_ino_t ino);
void cc_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		 int flags);
void cc_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void cc_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void cc_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
void cc_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	       struct fuse_file_info *fi);
void cc_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cc_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cc_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cc_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void cc_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void cc_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
		  struct fuse_file_info *fi);
void cc_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
		  struct fuse_file_info *fi);
void cc_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in,
			fuse_ino_t out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
			int flags);
void cc_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void cc_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	      unsigned flags, const void *in, size_t in_bytes, size_t out_bytes);
void cc_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cc_opendir_names(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cc_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cc_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void cc_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi);
void cc_readdirplus_names(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			  struct fuse_file_info *fi);
void cc_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void cc_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock);
void cc_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock,
	      int sleep);
void cc_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);

/* Shared by the operations: what the kernel is told of a node. */
void cc_entry(struct cc_mount *m, struct cc_node *n, const struct cc_look *look,
	      struct fuse_entry_param *e);

#endif
