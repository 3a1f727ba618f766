/* SPDX-License-Identifier: BSD-2-Clause */
/* The panel of `tmem run --live`, on the terminal; see live.h. */
#include "frontswap/pager/live.h"

#include "os/check.h"
#include "os/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

#define ROWS_LEAST 6u
#define COLS_LEAST 30u
#define PLAIN_NS   5000000000ull
#define FRAME_NS   (LIVE_MS * 1000000ull)
#define PATIENCE   100 /* ms, for a terminal that takes no more */

#define SAVE	"\0337"
#define RESTORE "\0338"

struct live_board *live_board(void)
{
	struct live_board *b =
		mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (b == MAP_FAILED)
		return NULL;
	return b;
}

/* All of it, unless the terminal is gone or takes nothing. A file description that the program
 * has made non-blocking may be ours, too. */
static bool write_out(const char *text, size_t n)
{
	while (n) {
		ssize_t done = write(STDERR_FILENO, text, n);

		if (done >= 0) {
			text += done;
			n -= (size_t)done;
		} else if (errno == EAGAIN) {
			struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

			if (poll(&p, 1, PATIENCE) <= 0)
				return false;
		} else if (errno != EINTR) {
			return false;
		}
	}
	return true;
}

/* Whether a frame can be written without waiting: the user may have stopped the terminal. */
static bool takes_output(void)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

	return poll(&p, 1, 0) > 0 && p.revents & POLLOUT;
}

/* The terminal is ours while we, or the program, are in its foreground. */
static bool in_foreground(const struct live *l)
{
	pid_t group = tcgetpgrp(STDERR_FILENO);

	return group < 0 || group == getpgrp() || l->ours(group);
}

static bool speaks_utf8(void)
{
	static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
	const char *v = NULL;

	for (unsigned i = 0; i < 3 && (!v || !*v); i++)
		v = getenv(names[i]);
	return v && (strcasestr(v, "utf-8") || strcasestr(v, "utf8"));
}

void live_start(struct live *l, struct live_board *board, bool (*ours)(pid_t pid))
{
	const char *term = getenv("TERM");

	*l = (struct live){.board = board, .ours = ours};
	if (!board)
		return;
	l->terminal = isatty(STDERR_FILENO) == 1 && term && *term && strcmp(term, "dumb") != 0;
	l->utf8 = speaks_utf8();
	l->next_ns = os_clock_ns() + (l->terminal ? FRAME_NS : PLAIN_NS);
}

void live_signals(const struct live *l, sigset_t *mask)
{
	if (!l->board || !l->terminal)
		return;
	sigaddset(mask, SIGTSTP);
	sigaddset(mask,
		  SIGTTOU); /* the last frame, when the program has left us in the background */
}

int live_wait_ms(const struct live *l, int most)
{
	uint64_t now = os_clock_ns(), ms;

	if (!l->board)
		return most;
	ms = now < l->next_ns ? (l->next_ns - now) / 1000000 + 1 : 0;
	return most >= 0 && (uint64_t)most < ms ? most : (int)ms;
}

/* ---- the panel ----------------------------------------------------------------------------- */

static void read_board(const struct live *l, uint64_t figure[LIVE_FIGURES])
{
	for (unsigned i = 0; i < LIVE_FIGURES; i++)
		figure[i] = atomic_load(&l->board->figure[i]);
}

/* The terminal's size; whether it is another than before. */
static bool measure(struct live *l)
{
	unsigned rows = l->rows, cols = l->cols;
	struct winsize w;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0) {
		l->rows = w.ws_row;
		l->cols = w.ws_col;
	}
	return l->rows != rows || l->cols != cols;
}

static bool large_enough(const struct live *l)
{
	return l->rows >= ROWS_LEAST && l->cols >= COLS_LEAST;
}

/*
 * Room for the panel: the cursor goes down, which scrolls when it is at the bottom, and up again,
 * and keeps its column. What lies below it then, if it is ours of before, is erased.
 */
static size_t room_text(const struct live *l, char *to, size_t n)
{
	size_t at = 0;

	for (unsigned i = 0; i < LIVE_LINES; i++)
		at += (size_t)snprintf(to + at, n - at, "\033D");
	at += (size_t)snprintf(to + at, n - at, "\033[%uA", LIVE_LINES);
	if (l->was_open)
		at += (size_t)snprintf(to + at, n - at, SAVE "\033[B\033[G\033[J" RESTORE);
	return at;
}

static size_t close_text(char *to, size_t n, unsigned rows)
{
	return (size_t)snprintf(to, n, SAVE "\033[r\033[%u;1H\033[J" RESTORE,
				rows - LIVE_LINES + 1);
}

static void draw(struct live *l)
{
	char frame[LIVE_LINES * LIVE_LINE_MAX + 256], line[LIVE_LINES][LIVE_LINE_MAX];
	uint64_t figure[LIVE_FIGURES], history[LIVE_HISTORY];
	unsigned n = l->nfaults < LIVE_HISTORY ? l->nfaults : LIVE_HISTORY;
	size_t at = 0;

	if (!l->open)
		at = room_text(l, frame, sizeof(frame));
	read_board(l, figure);
	for (unsigned i = 0; i < n; i++)
		history[i] = l->faults[(l->nfaults - n + i) % LIVE_HISTORY];
	/* The last column stays free: some terminals wrap there at once. */
	live_panel(line, figure, history, n, l->cols - 1, l->utf8);
	/* The region again in each frame: the program may have changed it. */
	at += (size_t)snprintf(frame + at, sizeof(frame) - at, SAVE "\033[1;%ur\033[0m",
			       l->rows - LIVE_LINES);
	for (unsigned i = 0; i < LIVE_LINES; i++)
		at += (size_t)snprintf(frame + at, sizeof(frame) - at, "\033[%u;1H%s\033[K",
				       l->rows - LIVE_LINES + 1 + i, line[i]);
	at += (size_t)snprintf(frame + at, sizeof(frame) - at, RESTORE);
	tmem_assert(L1, at < sizeof(frame));
	/* Before it is so: who is killed between the two leaves nothing behind. */
	atomic_store(&l->board->rows, l->rows);
	l->open = true;
	l->was_open = false;
	if (!write_out(frame, at)) {
		l->open = false;
		atomic_store(&l->board->rows, 0);
		l->board = NULL; /* the terminal is gone */
	}
}

static void plain(struct live *l)
{
	char line[LIVE_LINE_MAX];
	uint64_t figure[LIVE_FIGURES];
	size_t n;

	read_board(l, figure);
	if (!figure[LIVE_AT_NS])
		return;
	live_plain(line, figure);
	n = strlen(line);
	line[n] = '\n';
	if (!write_out(line, n + 1))
		l->board = NULL;
}

/*
 * The terminal has another size. What it has made of our lines is not known: some keep them where
 * they were, some move them. They are below the cursor, where the program writes, and are looked
 * for there; what is above it is the program's.
 */
static void forget(struct live *l)
{
	static const char whole[] = SAVE "\033[r" RESTORE;

	if (!l->open)
		return;
	(void)write_out(whole, sizeof(whole) - 1);
	l->open = false;
	l->was_open = true;
	atomic_store(&l->board->rows, 0);
}

void live_tick(struct live *l)
{
	uint64_t now = os_clock_ns();

	if (!l->board || now < l->next_ns)
		return;
	l->next_ns = now + (l->terminal ? FRAME_NS : PLAIN_NS);
	if (!l->terminal) {
		plain(l);
		return;
	}
	l->faults[l->nfaults++ % LIVE_HISTORY] = atomic_load(&l->board->figure[LIVE_FAULTS]);
	if (!in_foreground(l) || !takes_output())
		return;
	if (measure(l))
		forget(l);
	if (large_enough(l))
		draw(l);
}

void live_close(struct live *l)
{
	char text[64];

	if (!l->board || !l->open)
		return;
	/* What does not succeed here cannot: the terminal is gone. */
	(void)write_out(text, close_text(text, sizeof(text), l->rows));
	l->open = false;
	atomic_store(&l->board->rows, 0);
}

void live_end(struct live *l)
{
	if (l->board && !l->terminal)
		plain(l);
	live_close(l);
	l->board = NULL;
}

void live_resized(struct live *l)
{
	if (l->open)
		l->next_ns = 0;
	live_tick(l);
}

void live_pause(struct live *l)
{
	sigset_t stop;

	live_close(l);
	sigemptyset(&stop);
	sigaddset(&stop, SIGTSTP);
	/* The real thing, and not SIGSTOP: nobody could continue an orphaned process group. */
	raise(SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &stop, NULL);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	l->next_ns = os_clock_ns();
}

void live_abandoned(struct live_board *board)
{
	uint32_t rows = board ? atomic_load(&board->rows) : 0;
	char text[64];

	if (rows > LIVE_LINES)
		(void)write_out(text, close_text(text, sizeof(text), rows));
}
