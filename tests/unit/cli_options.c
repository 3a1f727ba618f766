/* SPDX-License-Identifier: BSD-2-Clause */
/* Options of the command line: sizes, counts, fractions, and how argv is taken apart. */
#include "cli/options.c"

#include <setjmp.h>

#include <cmocka.h>

/* The parser's messages end here instead of on stderr. */
static char said[512];

int cli_usage(const char *command, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(said, sizeof(said), fmt, ap);
	va_end(ap);
	return CLI_USAGE;
}

int cli_flush(const char *command)
{
	return CLI_OK;
}

static void sizes_are_powers_of_1024(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{"0", 0},
		{"1", 1},
		{"4096", 4096},
		{"7B", 7},
		{"1K", 1024},
		{"1k", 1024},
		{"1KB", 1024},
		{"512MiB", 512ull << 20},
		{"2G", 2ull << 30},
		{"2 G", 2ull << 30},
		{"1.5G", 3ull << 29},
		{"0.5K", 512},
		{"3T", 3ull << 40},
		{"9223372036854775807", INT64_MAX},
	};
	uint64_t bytes;
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		bytes = ~0ull;
		assert_int_equal(cli_parse_size(good[i].text, &bytes), 0);
		assert_int_equal(bytes, good[i].bytes);
	}
}

static void bad_sizes_change_nothing(void **state)
{
	static const char *const bad[] = {"",	  "K",	 "-1",	  "+1",	  " 1",	 "1X",
					  "1KX",  "1Ki", "1.5",	  "1.5B", "1e9", "0x10",
					  "1,5G", "1G ", "1..5G", "inf",  "nan"};
	static const char *const large[] = {"18446744073709551616", "9223372036854775808",
					    "99999999999999999999G", "8388608T", "16777216T"};
	uint64_t bytes = 42;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(cli_parse_size(bad[i], &bytes), -EINVAL);
	for (i = 0; i < sizeof(large) / sizeof(large[0]); i++)
		assert_int_equal(cli_parse_size(large[i], &bytes), -ERANGE);
	assert_int_equal(bytes, 42);
}

static void counts_and_numbers_have_bounds(void **state)
{
	unsigned n = 7;
	double d = 7;

	assert_int_equal(cli_parse_count("16", 1, 16, &n), 0);
	assert_int_equal(n, 16);
	assert_int_equal(cli_parse_count("17", 1, 16, &n), -ERANGE);
	assert_int_equal(cli_parse_count("0", 1, 16, &n), -ERANGE);
	assert_int_equal(cli_parse_count("4294967297", 1, 16, &n), -ERANGE);
	assert_int_equal(cli_parse_count("18446744073709551617", 1, 16, &n), -ERANGE);
	assert_int_equal(cli_parse_count("-1", 1, 16, &n), -EINVAL);
	assert_int_equal(cli_parse_count("1 ", 1, 16, &n), -EINVAL);
	assert_int_equal(cli_parse_count("", 1, 16, &n), -EINVAL);
	assert_int_equal(n, 16);
	assert_int_equal(cli_parse_number("0.5", 1, false, &d), 0);
	assert_true(d == 0.5);
	assert_int_equal(cli_parse_number("50%", 1, false, &d), 0);
	assert_true(d == 0.5);
	assert_int_equal(cli_parse_number("50%", 100, true, &d), 0);
	assert_true(d == 50);
	assert_int_equal(cli_parse_number("0", 1, false, &d), -ERANGE);
	assert_int_equal(cli_parse_number("1.01", 1, false, &d), -ERANGE);
	assert_int_equal(cli_parse_number("150%", 1, false, &d), -ERANGE);
	assert_int_equal(cli_parse_number("0x1p-1", 1, false, &d), -EINVAL);
	assert_int_equal(cli_parse_number("nan", 1, false, &d), -EINVAL);
	assert_int_equal(cli_parse_number(".", 1, false, &d), -EINVAL);
	assert_int_equal(cli_parse_number("1%%", 100, true, &d), -EINVAL);
}

/* Values of the options below. */
static bool flag, other;
static uint64_t size;
static unsigned count;
static const char *text;
static const struct cli_option options[] = {
	{"flag", 'f', CLI_FLAG, &flag, NULL, "", 0, 0},
	{"other", 'o', CLI_FLAG, &other, NULL, "", 0, 0},
	{"size", 's', CLI_SIZE, &size, "SIZE", "", 0, 0},
	{"count", 0, CLI_COUNT, &count, "N", "", 1, 9},
	{"text", 't', CLI_TEXT, &text, "TEXT", "", 0, 0},
	{NULL, 0, CLI_FLAG, NULL, NULL, NULL, 0, 0},
};

/* Parse the words of a line; operands come back in argv[1..] (operands NULL: none allowed). */
static int parse(const char *line, bool stop, char **argv, int *operands)
{
	static char copy[256];
	const struct cli_syntax syntax = {"test", operands ? "WORD..." : "", "", options, stop};
	char *at;
	int argc = 0;

	flag = other = false;
	size = count = 0;
	text = NULL;
	said[0] = 0;
	snprintf(copy, sizeof(copy), "%s", line);
	for (at = strtok(copy, " "); at; at = strtok(NULL, " "))
		argv[argc++] = at;
	argv[argc] = NULL;
	return cli_parse(&syntax, argc, argv, operands);
}

static void options_in_every_form(void **state)
{
	char *argv[16];
	int n;

	assert_int_equal(parse("t -fo one --size 2K two --count=3 -t x", false, argv, &n), -1);
	assert_true(flag && other);
	assert_int_equal(size, 2048);
	assert_int_equal(count, 3);
	assert_string_equal(text, "x");
	assert_int_equal(n, 2);
	assert_string_equal(argv[1], "one");
	assert_string_equal(argv[2], "two");
	assert_int_equal(parse("t -fs4K -ty --text=a=b", false, argv, &n), -1);
	assert_int_equal(size, 4096);
	assert_string_equal(text, "a=b");
	assert_int_equal(parse("t -f -- --other -s", false, argv, &n), -1);
	assert_true(flag && !other);
	assert_int_equal(n, 2);
	assert_string_equal(argv[1], "--other");
	assert_int_equal(parse("t -", false, argv, &n), -1);
	assert_int_equal(n, 1);
}

static void what_follows_the_program_is_its_own(void **state)
{
	char *argv[16];
	int n;

	assert_int_equal(parse("t -f prog -o --size x -- y", true, argv, &n), -1);
	assert_true(flag && !other);
	assert_int_equal(n, 6);
	assert_string_equal(argv[5], "--");
	assert_int_equal(parse("t -f -- -o -- y", true, argv, &n), -1);
	assert_true(!other);
	assert_int_equal(n, 3);
	assert_string_equal(argv[2], "--");
}

static void mistakes_are_named(void **state)
{
	static const char *const lines[][2] = {
		{"t --nope", "'--nope'"},
		{"t --nope=3", "'--nope'"},
		{"t --fla", "'--fla'"},
		{"t -x", "'-x'"},
		{"t -fx", "'-x'"},
		{"t --size", "--size needs SIZE"},
		{"t -s", "-s needs SIZE"},
		{"t --size=", "--size"},
		{"t --flag=1", "no value"},
		{"t --size 0", "range"},
		{"t --count 10", "1 to 9"},
		{"t --text=", "--text"},
		{"t --size 1 --size z", "z"},
		{"t --=3", "'--'"},
	};
	char *argv[16];
	size_t i;
	int n;

	assert_int_equal(parse("t -f one", false, argv, NULL), CLI_USAGE);
	assert_non_null(strstr(said, "'one': no operands"));
	assert_int_equal(parse("t -f", false, argv, NULL), -1);
	assert_true(flag);

	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		assert_int_equal(parse(lines[i][0], false, argv, &n), CLI_USAGE);
		if (!strstr(said, lines[i][1]))
			fail_msg("%s: '%s' is not in '%s'", lines[i][0], lines[i][1], said);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_powers_of_1024),
		cmocka_unit_test(bad_sizes_change_nothing),
		cmocka_unit_test(counts_and_numbers_have_bounds),
		cmocka_unit_test(options_in_every_form),
		cmocka_unit_test(what_follows_the_program_is_its_own),
		cmocka_unit_test(mistakes_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
