/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Codecs in loadable modules: for libraries that the project may not link
 * itself (lzo's is under the GPL), and for codecs of others.
 *
 * A module is DIR/tmem-codec-NAME.so (os/module.h says what DIR is) and exports
 * one constant
 *
 *	const struct codec_module tmem_codec_module
 *
 * It links nothing of ours: what it needs it is given by open(). Its codec must
 * hold all that codec.h asks of one. A module that was loaded stays: data that
 * it packed may be about.
 */
#ifndef TMEM_CODEC_MODULE_H
#define TMEM_CODEC_MODULE_H

#include "codec/codec.h"

/* What a module may use. */
struct codec_services {
	/* Memory that is zeroed and 64-aligned; NULL: none. free takes NULL. */
	void *(*zalloc)(size_t bytes);
	void (*free)(void *p);
};

#define CODEC_MODULE_ABI 1u /* raised whenever struct codec or this file changes */

struct codec_module {
	uint32_t abi;	      /* CODEC_MODULE_ABI */
	uint32_t codec_bytes; /* sizeof(struct codec) */
	/*
	 * The codec, static, of the name in the file's name and with an id of
	 * its own: CODEC_ID_LZO, or CODEC_ID_MODULE..14. NULL: cannot work
	 * here. May be called more than once, also at the same time; `s` is
	 * static and always the same.
	 */
	const struct codec *(*open)(const struct codec_services *s);
};
#define CODEC_MODULE_SYMBOL "tmem_codec_module"

/*
 * Load the module of a codec. 0 with the codec in *out; -ENOENT: no such
 * module; -ENOEXEC: there is one, but it is of another version, or wrong. Then
 * a line about it is logged, and why is in *why (static).
 */
int codec_module_load(const char *name, const struct codec **out, const char **why)
	__attribute__((warn_unused_result));

#endif
