/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host process: the store, the accounts, the limit.
 *
 *   total = anonymous memory of all managed processes (shared pages by share)
 *         + all memory of this process, the store with everything in it
 *         + the slots shared with the agents
 *
 * It lives until the program has ended and the last space is gone, and it ends
 * everything when the supervisor has died.
 */
#include "frontswap/pager/live.h"
#include "frontswap/pager/run.h"
#include "frontswap/pager/sight.h"

#include "os/clock.h"
#include "os/file.h"
#include "os/log.h"
#include "os/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SAMPLE_MS    5
#define END_NS	     20000000000ull /* the program is over, and no space has ended for so long */
#define ACCOUNT_NS   200000u
/*
 * The books of processes that have ended go back to the kernel no more often than this. Without it
 * 30 MiB of a thousand children's stayed for good, and counted: measured, of a limit of 40.
 */
#define RETURN_NS    1000000000ull
#define TRY_AGAIN_NS 200000000ull /* a file that would take no pages */

uint64_t run_total(struct run *r)
{
	return atomic_load_explicit(&r->total_bytes, memory_order_relaxed);
}

void run_abandon(struct run *r)
{
	(void)r;
	_exit(1);
}

static void raise_to(_Atomic uint64_t *peak, uint64_t v)
{
	uint64_t old = atomic_load(peak);

	while (old < v && !atomic_compare_exchange_weak(peak, &old, v))
		;
}

void run_account(struct run *r)
{
	uint64_t size, resident, shared, data, total = atomic_load(&r->stray_bytes), own = 0;
	uint64_t now = os_clock_ns(), last = atomic_load(&r->account_ns);

	/* Hundreds of processes ask, each for a sum over all of them: one in a while is enough. */
	if (now - last < ACCOUNT_NS || !atomic_compare_exchange_strong(&r->account_ns, &last, now))
		return;
	if (maps_statm(&r->statm, 0, &size, &resident, &shared, &data))
		own = (resident > shared ? resident - shared : 0) * AGENT_PAGE;
	os_mutex_lock(&r->lock);
	for (struct space *sp = r->spaces; sp; sp = sp->next) {
		total += atomic_load(&sp->resident);
		own += atomic_load(&sp->shm_bytes);
	}
	atomic_store(&r->host_bytes, own);
	atomic_store(&r->total_bytes, total + own);
	os_mutex_unlock(&r->lock);
	raise_to(&r->peak_total, total + own);
	raise_to(&r->peak_resident, total);
}

static int send_control(struct run *r, const struct control_message *m, int fd)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {(void *)(uintptr_t)m, sizeof(*m)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		control.h.cmsg_len = CMSG_LEN(sizeof(int));
		control.h.cmsg_level = SOL_SOCKET;
		control.h.cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(&control.h), &fd, sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control.space);
	}
	return sendmsg(r->control, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

void run_hold(struct run *r, uint64_t space, pid_t pid, int fd)
{
	struct control_message m = {.kind = fd >= 0 ? CONTROL_HOLD : CONTROL_RELEASE,
				    .value = (int32_t)pid,
				    .space = space};

	/* The supervisor gone: the main thread notices and ends everything. */
	if (send_control(r, &m, fd) < 0)
		os_log(OS_LOG_DEBUG, "supervisor does not answer");
}

void run_say(struct run *r, const char *fmt, ...)
{
	struct control_message m = {.kind = CONTROL_SAY};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m.text, sizeof(m.text), fmt, ap);
	va_end(ap);
	if (send_control(r, &m, -1) < 0)
		os_log(OS_LOG_DEBUG, "supervisor does not answer");
}

/* Peaks, time over the limit, and the store kept dense. */
static void sample(struct run *r, uint64_t since_ns)
{
	tmem_stats st = {.size = sizeof(st)};
	uint64_t slack;

	run_account(r);
	if (run_total(r) > r->opts.limit_bytes)
		atomic_fetch_add(&r->over_ns, since_ns);
	if (tmem_host_stats(r->host, &st) < 0)
		return;
	if (st.pages > atomic_load(&r->peak_stored_pages)) {
		atomic_store(&r->peak_stored_pages, st.pages);
		atomic_store(&r->peak_compressed, st.compressed_bytes);
		atomic_store(&r->peak_same, st.same_filled_pages);
		atomic_store(&r->held_bytes, atomic_load(&r->host_bytes));
	}
	raise_to(&r->peak_store, st.store_bytes);
	/* Each page that comes back makes room for another: full to the last byte it is now and
	 * then. */
	if (atomic_load(&r->store_full) ||
	    (!r->opts.overflow && st.store_bytes + st.limit_bytes / 16 >= st.limit_bytes))
		r->full_ns += since_ns;
	if (atomic_load(&r->store_full)) {
		r->refusing_ns += since_ns;
		/* A file takes pages again without any having left: its rate, or its errors, are
		 * over; which only who stores one finds out. */
		if (st.store_bytes + st.limit_bytes / 64 < st.limit_bytes ||
		    (r->opts.overflow && r->refusing_ns >= TRY_AGAIN_NS)) {
			r->refusing_ns = 0;
			atomic_store(&r->store_full, false);
		}
	}
	/* Raised for clones that are gone now. */
	if (st.limit_bytes > r->store_limit &&
	    st.store_bytes + r->store_limit / 4 < st.limit_bytes) {
		uint64_t most = st.store_bytes + r->store_limit / 4;

		if (tmem_host_set_limit(r->host, most > r->store_limit ? most : r->store_limit) < 0)
			os_log(OS_LOG_DEBUG, "the store's limit stays as it is");
	}
	slack = st.frame_bytes -
		(st.compressed_bytes < st.frame_bytes ? st.compressed_bytes : st.frame_bytes);
	if (slack > st.frame_bytes / 20 && slack > 1u << 20)
		tmem_host_compact(r->host, slack / 2 < 4u << 20 ? slack / 2 : 4u << 20);
}

/* Their address spaces go before our descriptors do; what does not go is poisoned. */
static void end_all(struct run *r)
{
	os_mutex_lock(&r->lock);
	for (struct space *sp = r->spaces; sp; sp = sp->next)
		peer_kill(sp);
	os_mutex_unlock(&r->lock);
	for (unsigned i = 0; i < 50 && keeper_sweep(r->socket_name) > 0; i++)
		usleep(2000);
	os_mutex_lock(&r->lock);
	for (struct space *sp = r->spaces; sp; sp = sp->next)
		atomic_store(&sp->stop, true);
	os_mutex_unlock(&r->lock);
	for (unsigned i = 0; i < 1000 && atomic_load(&r->nspaces); i++)
		usleep(2000);
}

/* Spaces that have ended: their threads, then themselves. Whether there was one. */
static bool reap_spaces(struct run *r)
{
	struct space *sp, *next;
	bool any;

	os_mutex_lock(&r->lock);
	sp = r->ended;
	r->ended = NULL;
	os_mutex_unlock(&r->lock);
	any = sp;
	for (; sp; sp = next) {
		next = sp->next;
		if (sp->has_thread)
			os_thread_join(sp->thread);
		space_free(sp);
		atomic_fetch_sub(&r->nspaces, 1);
	}
	return any;
}

/*
 * Whether spaces remain that do not end: no process of the program lives, but their
 * threads wait for something. What the kernel or a program could do to bring that
 * about is not known; the user is not to wait for it.
 */
static bool stuck(struct run *r, uint64_t now)
{
	uint32_t n = atomic_load(&r->nspaces);

	if (!atomic_load(&r->program_over) || n != r->last_spaces) {
		r->last_spaces = n;
		r->last_end_ns = now;
	}
	return now - r->last_end_ns > END_NS;
}

/*
 * Until the program is over and its memory given back, or will not be: then nspaces is
 * not 0. False: the supervisor died.
 */
static bool attend(struct run *r)
{
	uint64_t last = os_clock_ns(), now = last, returned_ns = last;
	struct control_message m;
	bool freed = false;

	while (!atomic_load(&r->program_over) || (atomic_load(&r->nspaces) && !stuck(r, now))) {
		struct pollfd p = {.fd = r->control, .events = POLLIN};

		if (poll(&p, 1, SAMPLE_MS) > 0) {
			ssize_t n = recv(r->control, &m, sizeof(m), 0);

			if (n <= 0 && !(n < 0 && errno == EINTR))
				return false;
			if (n == sizeof(m) && m.kind == CONTROL_OVER)
				atomic_store(&r->program_over, true);
		}
		freed |= reap_spaces(r);
		strays_look(r);
		now = os_clock_ns();
		if (freed && now - returned_ns > RETURN_NS) {
			os_blocks_return();
			returned_ns = now;
			freed = false;
		}
		sample(r, now - last);
		idle_step(r, now);
		sight_sample(r, now);
		last = now;
	}
	return true;
}

static int start(struct run *r, char *err, size_t errlen)
{
	tmem_host_options ho = TMEM_HOST_OPTIONS;
	int rc;

	ho.limit_bytes = r->opts.limit_bytes;
	ho.codec = r->opts.codec;
	ho.overflow_path = r->opts.overflow;
	ho.overflow_rate = r->opts.overflow_rate;
	ho.overflow_encrypt = r->opts.overflow_encrypt;
	/* A page that is refused stays in the program: no reason to be choosy. */
	ho.max_mean_zsize = TMEM_PAGE_SIZE;
	if (ho.overflow_path) {
		/* What is over goes to the file, what does not compress too; the
		 * program keeps a part of the memory to work in. */
		ho.limit_bytes = r->opts.limit_bytes / 4 * 3;
		ho.store_raw = 1;
	}
	r->store_limit = ho.limit_bytes;
	rc = tmem_host_create(&ho, &r->host, err, errlen);
	if (rc < 0)
		return rc;
	if (r->opts.trace && (rc = tmem_host_trace_start(r->host, r->opts.trace)) < 0) {
		snprintf(err, errlen, "cannot record to %s: %s", r->opts.trace, strerror(-rc));
		return rc;
	}
	home_note(r);
	rc = tmem_client_create(r->host, "run", &r->client);
	if (rc == 0)
		rc = listen_open(r, err, errlen);
	else
		snprintf(err, errlen, "%s", tmem_strerror(rc));
	if (rc == 0 && (rc = sight_start(r)) < 0)
		snprintf(err, errlen, "%s", tmem_strerror(rc));
	if (rc == 0 && (rc = auto_start(r)) < 0)
		snprintf(err, errlen, "--limit auto: %s",
			 rc == -ENOENT ? "this kernel does not tell what is idle "
					 "(/proc/PID/clear_refs, CONFIG_PROC_PAGE_MONITOR)"
				       : strerror(-rc));
	if (rc == 0 && (rc = workers_start(r)) < 0)
		snprintf(err, errlen, "no threads: %s", strerror(-rc));
	return rc;
}

/* Complete the trace, *records long; what is wrong with it goes to the user. 0 or -errno. */
static int trace_end(struct run *r, uint64_t *records)
{
	uint64_t lost = 0;
	int rc = r->opts.trace ? tmem_host_trace_stop(r->host, records, &lost) : 0;

	if (rc < 0)
		run_say(r, "the trace %.120s lacks %llu operations: %s", r->opts.trace,
			(unsigned long long)lost, strerror(-rc));
	return rc;
}

static int report_end(struct run *r)
{
	int rc = r->opts.report ? report_write(r, r->opts.report) : 0;

	if (rc < 0)
		run_say(r, "cannot write the report %.140s: %s", r->opts.report, strerror(-rc));
	return rc;
}

int run_host(const struct run_options *opts, int control, const struct keeper *keeper)
{
	static struct run run; /* outlives every thread */
	struct run *r = &run;
	struct control_message m = {.kind = CONTROL_READY};
	uint32_t stuck_spaces;
	os_thread listener;
	sigset_t all;

	/* A session of its own: Ctrl-C and Ctrl-Z are for the program. */
	setsid();
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "tmem-host");
	/* Measured, 50 programs with children one after the other: 3.7 MiB stay instead of 5 to 10.
	 */
	os_blocks_heaps((unsigned)sysconf(_SC_NPROCESSORS_ONLN));
	r->opts = *opts;
	r->control = control;
	r->keeper = *keeper;
	r->supervisor = getppid(); /* before the program can end */
	r->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	r->start_ns = os_clock_ns();
	os_mutex_init(&r->lock, OS_RANK_RUN, "run");
	if (start(r, m.text, sizeof(m.text)) < 0 ||
	    os_thread_create(&listener, "tmem-listen", listen_thread, r) < 0) {
		m.kind = CONTROL_FAILED;
		return send_control(r, &m, -1) < 0 ? 1 : 0;
	}
	snprintf(m.text, sizeof(m.text), "%.63s:%016llx%s", r->socket_name,
		 (unsigned long long)r->token,
		 opts->evict == RUN_EVICT_DISCARD ? AGENT_DISCARD : "");
	m.value = r->keeper.pid;
	if (r->keeper.pid)
		memcpy(r->keeper.name, r->socket_name, sizeof(r->socket_name));
	if (send_control(r, &m, -1) < 0)
		return 1;
	if (!attend(r)) {
		live_abandoned(r->opts.board);
		os_log(OS_LOG_ERROR, "the launcher was killed: the program's memory goes with it");
		end_all(r);
		return 1;
	}
	atomic_store(&r->stopping, true);
	os_thread_join(listener);
	stuck_spaces = atomic_load(&r->nspaces);
	if (stuck_spaces)
		os_log(OS_LOG_ERROR, "%u of the program's memories do not end: left as they are",
		       stuck_spaces);
	else
		workers_stop(r);
	auto_stop(r);
	m = (struct control_message){.kind = CONTROL_DONE};
	sight_last(r);
	m.value |= report_end(r) < 0;
	sight_end(r);
	m.value |= trace_end(r, &m.space) < 0;
	if (!stuck_spaces) {
		tmem_client_destroy(r->client);
		tmem_host_destroy(r->host);
	}
	keeper_end(&r->keeper);
	return send_control(r, &m, -1) < 0 ? 1 : 0;
}
