/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The registry of codecs, and their names as users type them.
 *
 * Built-in codecs are constants. Those of modules are added, never taken out:
 * stored data may be theirs. The table of them is the process's, as the loaded
 * modules themselves are; a place in it is written once, by an exchange.
 */
#include "codec/codec.h"

#include "codec/builtin.h"
#include "codec/module.h"
#include "os/log.h"
#include "os/module.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In the order in which they are listed. */
static const struct codec *const listed[] = {&codec_lz4, &codec_lz4hc, &codec_zstd, &codec_deflate};
#define LISTED (sizeof(listed) / sizeof(listed[0]))

static const struct codec *_Atomic by_id[CODEC_MAX] = {
	[CODEC_ID_RAW] = &codec_raw,	     [CODEC_ID_LZ4] = &codec_lz4,
	[CODEC_ID_ZSTD] = &codec_zstd,	     [CODEC_ID_LZ4HC] = &codec_lz4hc,
	[CODEC_ID_DEFLATE] = &codec_deflate, [CODEC_ID_ZSTD_DICT] = &codec_zstd_dict,
	[CODEC_ID_OPAQUE] = &codec_opaque,
};

/* Where modules' codecs are. */
static const uint8_t module_ids[] = {CODEC_ID_LZO, 8, 9, 10, 11, 12, 13, 14};

const struct codec *codec_by_id(unsigned id)
{
	return id < CODEC_MAX ? atomic_load_explicit(&by_id[id], memory_order_acquire) : NULL;
}

const struct codec *codec_at(unsigned i)
{
	if (i < LISTED)
		return listed[i];
	i -= LISTED;
	for (unsigned m = 0; m < sizeof(module_ids); m++) {
		const struct codec *c = codec_by_id(module_ids[m]);

		if (c && i-- == 0)
			return c;
	}
	return NULL;
}

/* Among those that are here. */
static const struct codec *find_known(const char *name)
{
	for (unsigned i = 0; codec_at(i); i++)
		if (strcmp(codec_at(i)->name, name) == 0)
			return codec_at(i);
	/* For measurements; not worth a place in the list of choices. */
	return strcmp(codec_raw.name, name) == 0 ? &codec_raw : NULL;
}

/* NULL: none; *why says so when there is a module that cannot be used. */
static const struct codec *find(const char *name, const char **why)
{
	const struct codec *c = find_known(name), *none = NULL;
	int rc;

	*why = NULL;
	if (c || !os_module_name_ok(name))
		return c;
	rc = codec_module_load(name, &c, why);
	if (rc == -ENOENT)
		*why = NULL;
	if (rc)
		return NULL;
	if (!atomic_compare_exchange_strong(&by_id[c->id], &none, c) && none != c) {
		*why = "its id is taken by another one";
		os_log(OS_LOG_ERROR, "module tmem-codec-%s: %s", name, *why);
		return NULL;
	}
	return c;
}

const struct codec *codec_find(const char *name)
{
	const char *why;

	return find(name, &why);
}

#define KNOWN_TEXT 400 /* room for what list_known() writes */

/* "lz4 (levels 1..64), zstd (levels -7..19)" */
static void list_known(char *text, size_t size)
{
	size_t used = 0;

	/* Modules are known once they are loaded; this one comes with the project. */
	(void)codec_find("lzo");
	text[0] = '\0';
	for (unsigned i = 0; codec_at(i) && used < size; i++) {
		const struct codec *c = codec_at(i);
		int n = snprintf(text + used, size - used, "%s%s (levels %d..%d)", i ? ", " : "",
				 c->name, c->level_min, c->level_max);

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

/* The codec is known; text is its level, or NULL. */
static int parse_for(const struct codec *codec, const char *text, struct codec_spec *out, char *err,
		     size_t errlen)
{
	long level = codec->level_default;
	int rc = text ? parse_level(text, &level) : 0;
	char known[KNOWN_TEXT];

	if (rc == 0 && (level < codec->level_min || level > codec->level_max))
		rc = -ERANGE;
	if (rc)
		list_known(known, sizeof(known));
	if (rc == -ERANGE)
		snprintf(err, errlen, "codec %s has no level %.20s; known: %s", codec->name, text,
			 known);
	else if (rc)
		snprintf(err, errlen, "codec level '%.20s' is no number; known: %s", text, known);
	else
		*out = (struct codec_spec){codec, (int)level};
	return rc;
}

int codec_parse(const char *text, struct codec_spec *out, char *err, size_t errlen)
{
	size_t len = strcspn(text, ":");
	const struct codec *codec = NULL;
	const char *why = NULL;
	char known[KNOWN_TEXT], name[48];
	int rc;

	snprintf(name, sizeof(name), "%.*s", len > 40 ? 40 : (int)len, text);
	if (len && len <= 40)
		codec = find(name, &why);
	if (codec)
		return parse_for(codec, text[len] == ':' ? text + len + 1 : NULL, out, err, errlen);
	list_known(known, sizeof(known));
	if (len == 0) {
		rc = -EINVAL;
		snprintf(err, errlen, "codec is NAME or NAME:LEVEL; known: %s", known);
	} else if (why) {
		rc = -ENOENT;
		snprintf(err, errlen, "module of codec '%s': %s; known: %s", name, why, known);
	} else {
		rc = -ENOENT;
		snprintf(err, errlen, "unknown codec '%s'; known: %s", name, known);
	}
	return rc;
}
