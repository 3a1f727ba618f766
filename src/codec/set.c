/* SPDX-License-Identifier: BSD-2-Clause */
/* One thread's contexts, made when first asked for. */
#include "codec/codec.h"
#include "os/check.h"

#include <string.h>

void *codec_set_cctx(struct codec_set *s, const struct codec_spec *spec)
{
	const struct codec *codec = spec->codec;
	unsigned id = codec->id;
	void *made;

	tmem_assert(id, id < CODEC_MAX);
	if (tmem_likely(s->cctx[id] && s->level[id] == spec->level))
		return s->cctx[id];
	/* The old one goes only when there is a new one: the set stays as it was on failure. */
	made = codec->cctx_create(spec->level);
	if (!made)
		return NULL;
	if (s->cctx[id])
		codec->cctx_destroy(s->cctx[id]);
	s->cctx[id] = made;
	s->level[id] = spec->level;
	return made;
}

void *codec_set_dctx(struct codec_set *s, const struct codec *codec)
{
	unsigned id = codec->id;

	tmem_assert(id, id < CODEC_MAX);
	if (tmem_unlikely(!s->dctx[id]))
		s->dctx[id] = codec->dctx_create();
	return s->dctx[id];
}

void codec_set_clear(struct codec_set *s)
{
	for (unsigned id = 0; id < CODEC_MAX; id++) {
		const struct codec *codec = codec_by_id(id);

		if (s->cctx[id])
			codec->cctx_destroy(s->cctx[id]);
		if (s->dctx[id])
			codec->dctx_destroy(s->dctx[id]);
	}
	memset(s, 0, sizeof(*s));
}

size_t codec_set_bytes(const struct codec_set *s)
{
	size_t bytes = 0;

	for (unsigned id = 0; id < CODEC_MAX; id++) {
		const struct codec *codec = codec_by_id(id);

		if (s->cctx[id])
			bytes += codec_cctx_bytes(codec, s->level[id]);
		if (s->dctx[id])
			bytes += codec->dctx_bytes;
	}
	return bytes;
}
