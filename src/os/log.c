/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Log lines.
 *
 * Takes no lock and allocates nothing, so it may be called anywhere, also
 * with any lock held: a line is built on the stack and leaves in one write(2).
 * Level and sink are set before threads start, or by tests.
 */
#include "os/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

static _Atomic int max_level = OS_LOG_WARNING;
static void (*sink_fn)(void *ctx, enum os_log_level level, const char *text);
static void *sink_ctx;

/* Text may hold bytes of file names and clients: none of them may start a line of its own. */
static void make_printable(char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f)
			*text = '?';
	}
}

static void write_stderr(const char *text)
{
	char line[LINE_MAX_BYTES + 16];
	int n = snprintf(line, sizeof(line), "tmem: %s\n", text);
	ssize_t rc;

	do {
		rc = write(STDERR_FILENO, line, (size_t)n);
	} while (rc < 0 && errno == EINTR);
}

void os_log(enum os_log_level level, const char *fmt, ...)
{
	char text[LINE_MAX_BYTES];
	int saved_errno = errno;
	va_list ap;

	if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
		return;
	va_start(ap, fmt);
	if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
		text[0] = '\0';
	va_end(ap);
	make_printable(text);
	if (sink_fn)
		sink_fn(sink_ctx, level, text);
	else
		write_stderr(text);
	errno = saved_errno;
}

void os_log_set_level(enum os_log_level level)
{
	atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

void os_log_set_sink(void (*sink)(void *ctx, enum os_log_level level, const char *text), void *ctx)
{
	sink_ctx = ctx;
	sink_fn = sink;
}
