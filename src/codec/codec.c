/* SPDX-License-Identifier: BSD-2-Clause */
/* The registry of codecs, and their names as users type them. */
#include "codec/codec.h"

#include "codec/builtin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In the order in which they are listed. */
static const struct codec *const listed[] = {&codec_lz4, &codec_zstd};
#define LISTED (sizeof(listed) / sizeof(listed[0]))

const struct codec *codec_at(unsigned i)
{
	return i < LISTED ? listed[i] : NULL;
}

static const struct codec *find(const char *name, size_t len)
{
	for (unsigned i = 0; i < LISTED; i++) {
		if (strlen(listed[i]->name) == len && memcmp(listed[i]->name, name, len) == 0)
			return listed[i];
	}
	/* For measurements; not worth a place in the list of choices. */
	if (strlen(codec_raw.name) == len && memcmp(codec_raw.name, name, len) == 0)
		return &codec_raw;
	return NULL;
}

const struct codec *codec_find(const char *name)
{
	return find(name, strlen(name));
}

const struct codec *codec_by_id(unsigned id)
{
	static const struct codec *const by_id[CODEC_MAX] = {
		[CODEC_ID_RAW] = &codec_raw,
		[CODEC_ID_LZ4] = &codec_lz4,
		[CODEC_ID_ZSTD] = &codec_zstd,
	};

	return id < CODEC_MAX ? by_id[id] : NULL;
}

/* "lz4 (levels 1..64), zstd (levels -7..19)" */
static void list_known(char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < LISTED && used < size; i++) {
		int n = snprintf(text + used, size - used, "%s%s (levels %d..%d)", i ? ", " : "",
				 listed[i]->name, listed[i]->level_min, listed[i]->level_max);

		used += (size_t)n;
	}
}

static int parse_level(const char *text, long *level)
{
	const char *digits = text + (*text == '-' || *text == '+');
	char *end;

	if (*digits < '0' || *digits > '9')
		return -EINVAL;
	errno = 0;
	*level = strtol(text, &end, 10);
	if (*end)
		return -EINVAL;
	return errno ? -ERANGE : 0;
}

int codec_parse(const char *text, struct codec_spec *out, char *err, size_t errlen)
{
	size_t len = strcspn(text, ":");
	const struct codec *codec = find(text, len);
	char known[128];
	long level;
	int rc = 0;

	list_known(known, sizeof(known));
	if (len == 0) {
		rc = -EINVAL;
		snprintf(err, errlen, "codec is NAME or NAME:LEVEL; known: %s", known);
	} else if (!codec) {
		rc = -ENOENT;
		snprintf(err, errlen, "unknown codec '%.*s'; known: %s", len > 40 ? 40 : (int)len,
			 text, known);
	} else {
		level = codec->level_default;
		if (text[len] == ':')
			rc = parse_level(text + len + 1, &level);
		if (rc == 0 && (level < codec->level_min || level > codec->level_max))
			rc = -ERANGE;
		if (rc == -ERANGE)
			snprintf(err, errlen, "codec %s has no level %.20s; known: %s", codec->name,
				 text + len + 1, known);
		else if (rc)
			snprintf(err, errlen, "codec level '%.20s' is no number; known: %s",
				 text + len + 1, known);
		else
			*out = (struct codec_spec){codec, (int)level};
	}
	return rc;
}
