/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loading codecs. What comes from a module is judged before it is believed:
 * a table that is of another version, incomplete, or claims what is not its
 * own is refused as a whole.
 *
 * No lock: the loader of the C library has its own, loading twice gives the
 * same module, and the registry takes a codec in by one exchange.
 */
#include "codec/module.h"

#include "os/log.h"
#include "os/mem.h"
#include "os/module.h"

#include <errno.h>
#include <string.h>

static const struct codec_services services = {.zalloc = os_zalloc_aligned, .free = os_free};

/* NULL: a sound codec of that name. */
static const char *codec_fault(const struct codec *c, const char *name)
{
	if (!c)
		return "it says it cannot work here";
	if (!c->name || strcmp(c->name, name) != 0)
		return "its codec has another name";
	if (c->id != CODEC_ID_LZO && (c->id < CODEC_ID_MODULE || c->id >= CODEC_ID_OPAQUE))
		return "its id is not one of a module";
	if ((c->id == CODEC_ID_LZO) != (strcmp(name, "lzo") == 0))
		return "its id is another codec's";
	if (!c->cctx_create || !c->cctx_destroy || !c->dctx_create || !c->dctx_destroy ||
	    !c->compress || !c->decompress)
		return "its codec is incomplete";
	if (c->level_min > c->level_default || c->level_default > c->level_max)
		return "its levels are out of order";
	return NULL;
}

static const char *module_open(const struct codec_module *m, const char *name,
			       const struct codec **out)
{
	if (m->abi != CODEC_MODULE_ABI || m->codec_bytes != sizeof(struct codec))
		return "it was made for another version";
	if (!m->open)
		return "it has nothing to open";
	*out = m->open(&services);
	return codec_fault(*out, name);
}

int codec_module_load(const char *name, const struct codec **out, const char **why)
{
	void *handle, *data;
	int rc;

	*out = NULL;
	*why = "it cannot be loaded";
	rc = os_module_open("tmem-codec", name, CODEC_MODULE_SYMBOL, &handle, &data);
	if (rc)
		return rc == -ENOEXEC ? rc : -ENOENT;
	*why = module_open(data, name, out);
	if (!*why)
		return 0;
	os_log(OS_LOG_ERROR, "module tmem-codec-%s: %s", name, *why);
	os_module_close(handle);
	*out = NULL;
	return -ENOEXEC;
}
