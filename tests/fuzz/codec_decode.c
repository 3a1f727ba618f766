/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: each codec's decoder, on any bytes.
 *
 *   byte 0: codec; bit 7: round trip; bit 6: with damage
 *   byte 1: pages     rest: the stream
 *
 * Decoding: the output has exactly the size that was asked for, in a block of
 * its own (ASan sees a byte past it) between guards (so does everybody else);
 * 0 or -EBADMSG, nothing else. The stream is in a block of its size too.
 * Round trip: the rest, repeated, is what pages hold; what compresses must come
 * back byte for byte; cut short it must stay within bounds. With damage: some bytes of the stream
 * are changed, by the last bytes of the input; the decoder is deep inside a stream that was good so
 * far when it meets them.
 */
#include "codec/codec.h"
#include "fuzz.h"

#include <errno.h>

#define PAGE  4096u
#define GUARD 64u

static struct codec_set set;

static void *must_malloc(size_t n)
{
	void *p = malloc(n ? n : 1);

	fuzz_check(p);
	return p;
}

/* Decode a copy of src that ends where its block ends. */
static int decode(const struct codec *c, const uint8_t *src, size_t size, uint8_t *out, size_t n)
{
	uint8_t *in = must_malloc(size), *block = must_malloc(n + 2 * GUARD);
	void *dctx = codec_set_dctx(&set, c);
	int ret;

	fuzz_check(dctx);
	memcpy(in, src, size);
	memset(block, 0xa7, n + 2 * GUARD);
	ret = c->decompress(dctx, in, size, block + GUARD, n);
	fuzz_check(ret == 0 || ret == -EBADMSG);
	for (unsigned i = 0; i < GUARD; i++)
		fuzz_check(block[i] == 0xa7 && block[GUARD + n + i] == 0xa7);
	memcpy(out, block + GUARD, n);
	free(in);
	free(block);
	return ret;
}

/* Triples at the end of the input: where (16 bits), and what to change there. */
static void damage(const struct codec *c, uint8_t *packed, size_t z, const uint8_t *p, size_t size,
		   uint8_t *out, size_t n)
{
	for (unsigned i = 0; i < 8 && size >= 3; i++, size -= 3)
		packed[(p[size - 1] | p[size - 2] << 8) % z] ^= p[size - 3];
	(void)decode(c, packed, z, out, n);
}

static void round_trip(const struct codec *c, const uint8_t *p, size_t size, size_t n, bool damaged)
{
	struct codec_spec spec = {c, c->level_default};
	uint8_t *plain = must_malloc(n), *packed = must_malloc(n), *back = must_malloc(n);
	void *cctx = codec_set_cctx(&set, &spec);
	size_t z;

	fuzz_check(cctx);
	for (size_t i = 0; i < n; i++)
		plain[i] = size ? (uint8_t)(p[i % size] + i / 512) : 0;
	z = c->compress(cctx, plain, n, packed, n);
	fuzz_check(z <= n);
	if (z) {
		fuzz_check(decode(c, packed, z, back, n) == 0);
		fuzz_check(memcmp(plain, back, n) == 0);
		/* Cut short it may still decode, to other bytes: checksums are not the codec's. */
		if (z > 1)
			(void)decode(c, packed, z - 1, back, n);
		if (damaged)
			damage(c, packed, z, p, size, back, n);
	}
	free(plain);
	free(packed);
	free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t which = fuzz_u8(&in), pages = fuzz_u8(&in);
	size_t n = (pages % 16 + 1) * (size_t)PAGE;
	const struct codec *c;
	unsigned codecs = 0;
	uint8_t *out;

	while (codec_at(codecs))
		codecs++;
	c = codec_at(which % 64 % codecs);
	if (which & 128) {
		round_trip(c, in.p, in.n, n, which & 64);
		return 0;
	}
	out = must_malloc(n);
	(void)decode(c, in.p, in.n, out, n);
	free(out);
	return 0;
}
