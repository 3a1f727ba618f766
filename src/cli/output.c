/* SPDX-License-Identifier: BSD-2-Clause */
/* What subcommands print with: messages, sizes, JSON, medians. */
#include "cli/cli.h"

#include "os/file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define JSON_VERSION                                                                               \
	1 /* raised when a field changes its meaning or goes; not when one is added                \
	   */

static void message(const char *command, const char *fmt, va_list ap, const char *tail)
{
	char text[1024];

	vsnprintf(text, sizeof(text), fmt, ap);
	fflush(stdout);
	fprintf(stderr, "tmem%s%s: %s%s\n", *command ? " " : "", command, text, tail);
}

int cli_fail(const char *command, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message(command, fmt, ap, "");
	va_end(ap);
	return CLI_FAILED;
}

int cli_usage(const char *command, const char *fmt, ...)
{
	char tail[128];
	va_list ap;

	snprintf(tail, sizeof(tail), "; see 'tmem %s%s--help'", command, *command ? " " : "");
	va_start(ap, fmt);
	message(command, fmt, ap, tail);
	va_end(ap);
	return CLI_USAGE;
}

const char *cli_bytes(char buf[CLI_TEXT_MAX], uint64_t bytes, bool exact)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double n = (double)bytes;
	unsigned u = 0;

	while (n >= 1023.95 && u + 1 < sizeof(units) / sizeof(units[0])) {
		n /= 1024;
		u++;
	}
	if (exact)
		snprintf(buf, CLI_TEXT_MAX, "%llu", (unsigned long long)bytes);
	else if (u == 0)
		snprintf(buf, CLI_TEXT_MAX, "%u B", (unsigned)bytes);
	else
		snprintf(buf, CLI_TEXT_MAX, "%.1f %s", n, units[u]);
	return buf;
}

/* jansson reports only lack of memory here, and there is nothing better to do then. */
static void json_must(int err)
{
	if (err) {
		fprintf(stderr, "tmem: out of memory\n");
		exit(CLI_FAILED);
	}
}

json_t *cli_json(const char *command)
{
	json_t *object = json_object();

	json_must(!object);
	json_must(json_object_set_new(object, "version", json_integer(JSON_VERSION)));
	cli_json_text(object, "command", command);
	cli_json_text(object, "tmem_version", TMEM_VERSION);
	return object;
}

void cli_json_u64(json_t *object, const char *key, uint64_t value)
{
	json_must(json_object_set_new(object, key, json_integer((json_int_t)value)));
}

void cli_json_real(json_t *object, const char *key, double value)
{
	json_must(
		json_object_set_new(object, key, isfinite(value) ? json_real(value) : json_null()));
}

void cli_json_text(json_t *object, const char *key, const char *value)
{
	/* Names of programs and files may be any bytes; JSON's text may not. */
	json_t *text = value ? json_string(value) : json_null();

	if (!text) {
		char ascii[256];
		size_t i;

		for (i = 0; value[i] && i < sizeof(ascii) - 1; i++)
			ascii[i] = (signed char)value[i] < 32 ? '?' : value[i];
		ascii[i] = 0;
		text = json_string(ascii);
	}
	json_must(json_object_set_new(object, key, text));
}

int cli_json_print(json_t *object)
{
	const char *name = json_string_value(json_object_get(object, "command"));
	char command[64];

	snprintf(command, sizeof(command), "%s", name ? name : "");
	errno = 0;
	json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(object);
	return cli_flush(command);
}

int cli_flush(const char *command)
{
	if (fflush(stdout) || ferror(stdout))
		return cli_fail(command, "cannot write to stdout: %s",
				strerror(errno ? errno : EIO));
	return CLI_OK;
}

int cli_close(FILE *f, const char *path)
{
	/* The first error is still in errno: what works does not touch it. */
	bool bad = ferror(f);
	int rc;

	bad |= fclose(f) != 0;
	rc = !bad ? 0 : errno ? -errno : -EIO;
	if (rc)
		os_file_discard(path);
	return rc;
}

bool cli_same_file(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double cli_median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare_doubles);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

uint64_t cli_stride(uint64_t n, uint64_t from)
{
	while (common_divisor(n, from) != 1)
		from++;
	return from;
}
