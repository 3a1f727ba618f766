/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Options: one table for each subcommand, which parses the command line and
 * prints the help. getopt_long is not used because its messages differ
 * between C libraries and ours are part of what the tests pin.
 */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- values ---------------------------------------------------------------- */

/* The power of 1024 that a unit stands for, or -1. "" is 0. */
static int unit_shift(const char *unit)
{
	static const char letters[] = "KMGT";
	const char *at;
	int shift = 0;

	if (*unit && (at = strchr(letters, toupper((unsigned char)*unit)))) {
		shift = 10 * (int)(at - letters + 1);
		unit++;
		if (*unit == 'i' || *unit == 'I') {
			unit++;
			if (*unit != 'B' && *unit != 'b')
				return -1;
		}
	}
	if (*unit == 'B' || *unit == 'b')
		unit++;
	return *unit ? -1 : shift;
}

int cli_parse_size(const char *text, uint64_t *bytes)
{
	const char *p = text;
	uint64_t whole = 0;
	double fraction = 0, digit = 0.1;
	bool fractional = false;
	int shift;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	for (; isdigit((unsigned char)*p); p++)
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, *p - '0', &whole))
			return -ERANGE;
	if (*p == '.') {
		fractional = true;
		for (p++; isdigit((unsigned char)*p); p++, digit /= 10)
			fraction += (*p - '0') * digit;
	}
	while (*p == ' ')
		p++;
	shift = unit_shift(p);
	if (shift < 0 || (fractional && shift == 0))
		return -EINVAL;
	if (whole > UINT64_MAX >> 1 >> shift)
		return -ERANGE;
	*bytes = (whole << shift) + (uint64_t)(fraction * (double)(1ull << shift));
	return 0;
}

int cli_parse_count(const char *text, unsigned min, unsigned max, unsigned *out)
{
	unsigned long long n;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (*end)
		return -EINVAL;
	if (errno || n < min || n > max)
		return -ERANGE;
	*out = (unsigned)n;
	return 0;
}

int cli_parse_number(const char *text, double max, bool percent, double *out)
{
	double n;
	char *end;

	if (!isdigit((unsigned char)*text) && *text != '.')
		return -EINVAL;
	n = strtod(text, &end);
	if (end == text || strpbrk(text, "xXpPnN"))
		return -EINVAL;
	if (*end == '%') {
		end++;
		if (!percent)
			n /= 100;
	}
	if (*end)
		return -EINVAL;
	if (!(n > 0 && n <= max))
		return -ERANGE;
	*out = n;
	return 0;
}

/* Store one option's value; CLI_OK or CLI_USAGE with its line. */
static int set_value(const struct cli_syntax *s, const struct cli_option *o, const char *text)
{
	int err = 0;

	switch (o->kind) {
	case CLI_FLAG:
		*(bool *)o->value = true;
		return CLI_OK;
	case CLI_TEXT:
		if (!*text)
			return cli_usage(s->command, "--%s needs %s, not an empty text", o->name,
					 o->arg);
		*(const char **)o->value = text;
		return CLI_OK;
	case CLI_SIZE_AUTO:
		if (!strcmp(text, "auto")) {
			*(uint64_t *)o->value = CLI_AUTO;
			return CLI_OK;
		}
		/* fallthrough */
	case CLI_SIZE:
		err = cli_parse_size(text, o->value);
		if (!err && *(uint64_t *)o->value == 0)
			err = -ERANGE;
		if (err == -ERANGE)
			return cli_usage(s->command, "--%s: '%s' is out of range: 1 to 8388607T",
					 o->name, text);
		if (err)
			return cli_usage(s->command,
					 "--%s: '%s' is not a size such as 512M, 2G or 4096",
					 o->name, text);
		return CLI_OK;
	case CLI_COUNT:
		if (cli_parse_count(text, o->min, o->max, o->value))
			return cli_usage(s->command,
					 "--%s: '%s' is not a whole number from %u to %u", o->name,
					 text, o->min, o->max);
		return CLI_OK;
	case CLI_FRACTION:
		if (cli_parse_number(text, 1, false, o->value))
			return cli_usage(s->command,
					 "--%s: '%s' is not a fraction above 0 and at most 1",
					 o->name, text);
		return CLI_OK;
	case CLI_PERCENT:
		if (cli_parse_number(text, 100, true, o->value))
			return cli_usage(s->command,
					 "--%s: '%s' is not a percentage above 0 and at most 100",
					 o->name, text);
		return CLI_OK;
	}
	return CLI_OK;
}

/* ---- help ------------------------------------------------------------------ */

static void print_help(const struct cli_syntax *s)
{
	const struct cli_option *o;
	char left[64];

	printf("usage: tmem %s [OPTIONS]%s%s\n\n%s\n\noptions:\n", s->command,
	       *s->operands ? " " : "", s->operands, s->about);
	for (o = s->options; o->name; o++) {
		if (o->letter)
			snprintf(left, sizeof(left), "-%c, --%s%s%s", o->letter, o->name,
				 o->arg ? " " : "", o->arg ? o->arg : "");
		else
			snprintf(left, sizeof(left), "    --%s%s%s", o->name, o->arg ? " " : "",
				 o->arg ? o->arg : "");
		printf("  %-24s  %s\n", left, o->help);
	}
	printf("  %-24s  %s\n", "-h, --help", "this text");
}

/* ---- the parser ------------------------------------------------------------ */

static const struct cli_option *by_name(const struct cli_syntax *s, const char *name, size_t len)
{
	const struct cli_option *o;

	for (o = s->options; o->name; o++)
		if (strlen(o->name) == len && !memcmp(o->name, name, len))
			return o;
	return NULL;
}

static const struct cli_option *by_letter(const struct cli_syntax *s, char letter)
{
	const struct cli_option *o;

	for (o = s->options; o->name; o++)
		if (o->letter && o->letter == letter)
			return o;
	return NULL;
}

/* --name, --name=value, --name value. May take the next argument. */
static int parse_long(const struct cli_syntax *s, int argc, char **argv, int *i)
{
	const char *name = argv[*i] + 2, *value = strchr(name, '=');
	size_t len = value ? (size_t)(value - name) : strlen(name);
	const struct cli_option *o = by_name(s, name, len);

	if (!o)
		return cli_usage(s->command, "unknown option '--%.*s'", (int)len, name);
	if (value)
		value++;
	if (o->kind == CLI_FLAG && value)
		return cli_usage(s->command, "--%s takes no value", o->name);
	if (o->kind != CLI_FLAG && !value) {
		if (*i + 1 >= argc)
			return cli_usage(s->command, "--%s needs %s", o->name, o->arg);
		value = argv[++*i];
	}
	return set_value(s, o, value);
}

/* -x, -xy for flags; -x value, -xvalue otherwise. */
static int parse_letters(const struct cli_syntax *s, int argc, char **argv, int *i)
{
	const char *p = argv[*i] + 1, *value;
	const struct cli_option *o;
	int code = CLI_OK;

	for (; *p && code == CLI_OK; p++) {
		o = by_letter(s, *p);
		if (!o)
			return cli_usage(s->command, "unknown option '-%c'", *p);
		if (o->kind == CLI_FLAG) {
			code = set_value(s, o, NULL);
			continue;
		}
		value = p[1] ? p + 1 : *i + 1 < argc ? argv[++*i] : NULL;
		if (!value)
			return cli_usage(s->command, "-%c needs %s", *p, o->arg);
		return set_value(s, o, value);
	}
	return code;
}

int cli_parse(const struct cli_syntax *s, int argc, char **argv, int *operands)
{
	int i, n = 0, code = CLI_OK;
	bool ended = false;

	for (i = 1; i < argc && code == CLI_OK; i++) {
		char *a = argv[i];

		if (ended || a[0] != '-' || !a[1]) {
			argv[++n] = a;
			ended |= s->stop_at_operand;
		} else if (!strcmp(a, "--")) {
			ended = true;
		} else if (!strcmp(a, "--help") || !strcmp(a, "-h")) {
			print_help(s);
			return cli_flush(s->command);
		} else if (a[1] == '-') {
			code = parse_long(s, argc, argv, &i);
		} else {
			code = parse_letters(s, argc, argv, &i);
		}
	}
	if (n && !*s->operands && code == CLI_OK)
		return cli_usage(s->command, "'%s': no operands", argv[1]);
	if (operands)
		*operands = n;
	return code == CLI_OK ? -1 : code;
}
