/* SPDX-License-Identifier: BSD-2-Clause */
/* One line a message on stderr, "tmem: text", or to a sink that a test sets. */
#ifndef TMEM_OS_LOG_H
#define TMEM_OS_LOG_H

enum os_log_level { OS_LOG_ERROR, OS_LOG_WARNING, OS_LOG_INFO, OS_LOG_DEBUG };

void os_log(enum os_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Messages above this level are dropped; default OS_LOG_WARNING. */
void os_log_set_level(enum os_log_level level);
/* NULL: stderr. */
void os_log_set_sink(void (*sink)(void *ctx, enum os_log_level level, const char *text), void *ctx);

#endif
