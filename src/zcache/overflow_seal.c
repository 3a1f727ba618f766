/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sealing what goes to the overflow file: AES-256-GCM of libcrypto, with a key
 * that each host draws at random and keeps in memory only. Who reads the file
 * or the disk it was on learns nothing but sizes; who changes it is found out.
 *
 * The nonce is a number that counts up in the host (56 bits) and never comes
 * twice. It is kept in the item, so a zpage that was put elsewhere in the file,
 * or an older one in the same place, does not open.
 *
 * Two contexts are made with the host, one for each direction, each under its
 * mutex: opening is on the way of a get, which must not allocate (T8); with the
 * key set once, giving a context a new nonce allocates nothing. The mutex holds
 * others up for the time of one zpage, about a microsecond for 2 KiB, beside a
 * read of the file that takes more.
 *
 * The library is loaded when the first host is to seal, and stays: its relocations
 * are 0.4 MiB in each process that it is linked to, and few processes seal.
 *
 * Locks: seal and open, leaves.
 */
#include "os/log.h"
#include "zcache/overflow.h"

#ifdef TMEM_HAVE_CRYPTO
#include <dlfcn.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#define KEY   32
#define NONCE 12

/* What is used of it. */
#define FUNCTIONS(F)                                                                               \
	F(EVP_CIPHER_CTX_new)                                                                      \
	F(EVP_CIPHER_CTX_free)                                                                     \
	F(EVP_CIPHER_CTX_ctrl)                                                                     \
	F(EVP_CipherInit_ex)                                                                       \
	F(EVP_EncryptInit_ex)                                                                      \
	F(EVP_EncryptUpdate)                                                                       \
	F(EVP_EncryptFinal_ex)                                                                     \
	F(EVP_DecryptInit_ex)                                                                      \
	F(EVP_DecryptUpdate)                                                                       \
	F(EVP_DecryptFinal_ex)                                                                     \
	F(EVP_aes_256_gcm)                                                                         \
	F(RAND_priv_bytes)

struct crypto {
#define POINTER(name) __typeof__(name) *name;
	FUNCTIONS(POINTER)
};

struct over_seal {
	struct crypto lib;
	struct os_mutex seal, open;
	EVP_CIPHER_CTX *sealing, *opening;
};

#define TEXT_(x) #x
#define TEXT(x)	 TEXT_(x)

static int crypto_load(struct crypto *c)
{
	/* The one we were compiled for. It has things to do when the process ends, so it stays. */
	void *lib = dlopen("libcrypto.so." TEXT(OPENSSL_SHLIB_VERSION),
			   RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	bool there = lib;

	if (!lib) {
		os_log(OS_LOG_WARNING, "%s", dlerror());
		return -ENOTSUP;
	}
#define FIND(name)                                                                                 \
	c->name = (__typeof__(name) *)dlsym(lib, #name);                                           \
	there = there && c->name;
	FUNCTIONS(FIND)
	dlclose(lib);
	return there ? 0 : -ENOTSUP;
}

static EVP_CIPHER_CTX *context(const struct crypto *lib, const unsigned char *key, int sealing)
{
	EVP_CIPHER_CTX *c = lib->EVP_CIPHER_CTX_new();

	if (c && lib->EVP_CipherInit_ex(c, lib->EVP_aes_256_gcm(), NULL, key, NULL, sealing) != 1) {
		lib->EVP_CIPHER_CTX_free(c);
		c = NULL;
	}
	return c;
}

int over_seal_create(struct tmem_host *h, struct over_seal **out)
{
	struct over_seal *s = zc_alloc(h, sizeof(*s));
	unsigned char key[KEY];
	int rc;

	*out = NULL;
	if (!s)
		return -ENOMEM;
	rc = crypto_load(&s->lib);
	if (rc < 0) {
		zc_free(h, s, sizeof(*s));
		return rc;
	}
	rc = -ENOMEM;
	if (s->lib.RAND_priv_bytes(key, sizeof(key)) != 1) {
		rc = -EIO;
		goto fail;
	}
	s->sealing = context(&s->lib, key, 1);
	s->opening = context(&s->lib, key, 0);
	if (!s->sealing || !s->opening)
		goto fail;
	explicit_bzero(key, sizeof(key));
	os_mutex_init(&s->seal, OS_RANK_LEAF, "overflow sealing");
	os_mutex_init(&s->open, OS_RANK_LEAF, "overflow opening");
	*out = s;
	return 0;
fail:
	explicit_bzero(key, sizeof(key));
	s->lib.EVP_CIPHER_CTX_free(s->sealing);
	s->lib.EVP_CIPHER_CTX_free(s->opening);
	zc_free(h, s, sizeof(*s));
	return rc;
}

/* The contexts wipe their keys. */
void over_seal_destroy(struct tmem_host *h, struct over_seal *s)
{
	if (!s)
		return;
	s->lib.EVP_CIPHER_CTX_free(s->sealing);
	s->lib.EVP_CIPHER_CTX_free(s->opening);
	os_mutex_destroy(&s->seal);
	os_mutex_destroy(&s->open);
	zc_free(h, s, sizeof(*s));
}

static void nonce_of(uint64_t number, unsigned char nonce[NONCE])
{
	memset(nonce, 0, NONCE);
	memcpy(nonce + NONCE - sizeof(number), &number, sizeof(number));
}

int over_seal(struct over_seal *s, uint64_t number, const void *src, size_t n, void *dst)
{
	unsigned char nonce[NONCE], *to = dst;
	int done, last;
	bool ok;

	nonce_of(number, nonce);
	os_mutex_lock(&s->seal);
	ok = s->lib.EVP_EncryptInit_ex(s->sealing, NULL, NULL, NULL, nonce) == 1 &&
	     s->lib.EVP_EncryptUpdate(s->sealing, to, &done, src, (int)n) == 1 &&
	     s->lib.EVP_EncryptFinal_ex(s->sealing, to + done, &last) == 1 &&
	     s->lib.EVP_CIPHER_CTX_ctrl(s->sealing, EVP_CTRL_AEAD_GET_TAG, OVER_TAG, to + n) == 1;
	os_mutex_unlock(&s->seal);
	return ok ? 0 : -EIO;
}

int over_unseal(struct over_seal *s, uint64_t number, void *buf, size_t n)
{
	unsigned char nonce[NONCE], *at = buf;
	int done, last;
	bool ok;

	nonce_of(number, nonce);
	os_mutex_lock(&s->open);
	ok = s->lib.EVP_DecryptInit_ex(s->opening, NULL, NULL, NULL, nonce) == 1 &&
	     s->lib.EVP_CIPHER_CTX_ctrl(s->opening, EVP_CTRL_AEAD_SET_TAG, OVER_TAG, at + n) == 1 &&
	     s->lib.EVP_DecryptUpdate(s->opening, at, &done, at, (int)n) == 1 &&
	     s->lib.EVP_DecryptFinal_ex(s->opening, at + done, &last) == 1;
	os_mutex_unlock(&s->open);
	return ok ? 0 : -EIO;
}

#else

int over_seal_create(struct tmem_host *h, struct over_seal **out)
{
	(void)h;
	*out = NULL;
	return -ENOTSUP;
}

void over_seal_destroy(struct tmem_host *h, struct over_seal *s)
{
	(void)h;
	(void)s;
}

int over_seal(struct over_seal *s, uint64_t number, const void *src, size_t n, void *dst)
{
	(void)s, (void)number, (void)src, (void)n, (void)dst;
	return -EIO;
}

int over_unseal(struct over_seal *s, uint64_t number, void *buf, size_t n)
{
	(void)s, (void)number, (void)buf, (void)n;
	return -EIO;
}

#endif
