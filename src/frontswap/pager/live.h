/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The panel of `tmem run --live`: two lines at the bottom of the user's terminal.
 *
 * The program writes to the same terminal, when and what it likes, and we see
 * nothing of it. So the panel keeps out of its way by what terminals have for
 * that: a scroll region. All lines but the last two scroll; the panel is drawn
 * below them, and the cursor is back where it was, all in one write(), which
 * the kernel does not mix with others'. The program's own output, and where it
 * goes on, stay as they are.
 *
 *      +------------------------+ 1
 *      | $ tmem run --live ...  |
 *      | what the program says  |   scroll region
 *      | and says_              |
 *      +------------------------+ rows - LIVE_LINES
 *      | tmem [####---]  80 % ..|   panel
 *      | stored 402 MiB, ratio  |
 *      +------------------------+ rows
 *
 *   L1  open => the region is [1, rows - LIVE_LINES], and board->rows == rows
 *   L2  !open => the region is all of it, nothing of ours is below it, board->rows == 0
 *   L3  whoever stops or ends while open closes before; should the supervisor be killed, the
 *       host does (live_abandoned)
 *
 * Who sets a scroll region himself, or clears the screen (editors, pagers), and
 * the panel will overwrite each other: it is not for those.
 *
 * The figures come from the host through memory that both share: one writes, one
 * reads, each figure by itself. Where standard error is no terminal there are
 * plain lines, now and then, and one at the end.
 */
#ifndef TMEM_PAGER_LIVE_H
#define TMEM_PAGER_LIVE_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LIVE_LINES    2u
#define LIVE_MS	      250 /* from frame to frame */
#define LIVE_HISTORY  64u
#define LIVE_LINE_MAX 1024u /* bytes of a line */

enum live_figure {
	LIVE_AT_NS, /* since the start; 0: nothing was told yet */
	LIVE_LIMIT,
	LIVE_TOTAL,
	LIVE_RESIDENT,
	LIVE_STORE,
	LIVE_STORED_PAGES,
	LIVE_COMPRESSED,
	LIVE_FAULTS,	     /* a second */
	LIVE_P99_NS,	     /* of those; 0: there were none */
	LIVE_WAITING,	     /* thousandths of the time: waits of all threads together */
	LIVE_BARE,	     /* with --limit auto: the program by itself */
	LIVE_PROMOTIONS_PPM, /* or LIVE_UNKNOWN */
	LIVE_COLD_MS,	     /* 0: not with --limit auto */
	LIVE_OVER,	     /* 1: over the limit since the last time */
	LIVE_FIGURES
};

#define LIVE_UNKNOWN UINT64_MAX

struct live_board {
	_Atomic uint64_t figure[LIVE_FIGURES];
	_Atomic uint32_t rows; /* L1, L2 */
};

struct live {
	struct live_board *board; /* NULL: there is no panel, and nothing below does anything */
	bool terminal, open, utf8;
	bool was_open; /* before the terminal's size changed: there may be lines of ours */
	unsigned rows, cols;
	uint64_t next_ns;
	uint64_t faults[LIVE_HISTORY]; /* a ring */
	unsigned nfaults;
	bool (*ours)(pid_t pid); /* whether a process descends from us */
};

/* Memory to share with the host: before it is forked. NULL: none. Never given back. */
struct live_board *live_board(void);
/* Begin, in the supervisor. */
void live_start(struct live *l, struct live_board *board, bool (*ours)(pid_t pid));
/* Signals to block beside the others, when there is a panel. */
void live_signals(const struct live *l, sigset_t *mask);
/* For poll(): milliseconds until something is to be done, at most `most` (-1: any time). */
int live_wait_ms(const struct live *l, int most);
/* Draw when it is time to. */
void live_tick(struct live *l);
/* The terminal has another size. */
void live_resized(struct live *l);
/* The user wants us to stop (SIGTSTP, which is blocked): returns when we go on. */
void live_pause(struct live *l);
/* Take the panel away, or write the last plain line. It may come back. */
void live_close(struct live *l);
void live_end(struct live *l);
/* In the host: the supervisor was killed. */
void live_abandoned(struct live_board *board);

/* ---- live_text.c: what it says; pure --------------------------------------------------------- */

/*
 * The panel's lines for that many columns: valid texts, without control characters, at most cols
 * wide. history: faults a second, the latest last.
 */
void live_panel(char line[LIVE_LINES][LIVE_LINE_MAX], const uint64_t figure[LIVE_FIGURES],
		const uint64_t *history, unsigned n, unsigned cols, bool utf8);
/* One plain line, without its end. */
void live_plain(char line[LIVE_LINE_MAX], const uint64_t figure[LIVE_FIGURES]);

#endif
