/* SPDX-License-Identifier: BSD-2-Clause */
/* A zpool driver in a module: zbud by another name. And, by definitions, some that are refused. */
#include "alloc/zbud.h"

#ifndef TOY_NAME
#define TOY_NAME "toypool"
#endif
#ifndef TOY_ABI
#define TOY_ABI ZPOOL_MODULE_ABI
#endif

static struct zpool_ops toy;

static int toy_create(struct frames *f, const struct zpool_owner *owner, void *ctx,
		      struct zpool **out)
{
	int ret = zbud_ops.create(f, owner, ctx, out);

	if (ret == 0)
		(*out)->ops = &toy;
	return ret;
}

__attribute__((constructor)) static void toy_init(void)
{
	toy = zbud_ops;
	toy.type = TOY_NAME;
	toy.create = toy_create;
#ifdef TOY_INCOMPLETE
	toy.shrink = NULL;
#endif
}

__attribute__((visibility("default"))) extern const struct zpool_module tmem_zpool_module;
const struct zpool_module tmem_zpool_module = {.abi = TOY_ABI, .ops = &toy};
