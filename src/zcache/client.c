/* SPDX-License-Identifier: BSD-2-Clause */
/* Clients: a name and a table of pools. */
#include "zcache/zcache.h"

#include <stdio.h>

int tmem_client_create(tmem_host *h, const char *name, tmem_client **out)
{
	struct tmem_client *c = zc_alloc(h, sizeof(*c));

	*out = NULL;
	if (!c)
		return -ENOMEM;
	c->host = h;
	c->number = atomic_fetch_add(&h->clients_ever, 1);
	zc_evict_init(&c->ev[ZC_EPHEMERAL], h, c, ZC_EPHEMERAL);
	zc_evict_init(&c->ev[ZC_PERSISTENT], h, c, ZC_PERSISTENT);
	snprintf(c->name, sizeof(c->name), "%s", name ? name : "");
	os_mutex_lock(&h->lock);
	c->next = h->clients;
	if (c->next)
		c->next->prev = c;
	h->clients = c;
	os_mutex_unlock(&h->lock);
	atomic_fetch_add(&h->nclients, 1);
	*out = c;
	return 0;
}

void tmem_client_destroy(tmem_client *c)
{
	struct tmem_host *h;

	if (!c)
		return;
	h = c->host;
	/* First out of the list: who walks it holds the lock, so is not in this client any more. */
	os_mutex_lock(&h->lock);
	if (c->next)
		c->next->prev = c->prev;
	if (c->prev)
		c->prev->next = c->next;
	else
		h->clients = c->next;
	os_mutex_unlock(&h->lock);
	atomic_fetch_sub(&h->nclients, 1);
	zc_client_destroy_pools(c);
	zc_shared_forget(c);
	zc_evict_exit(&c->ev[ZC_EPHEMERAL]);
	zc_evict_exit(&c->ev[ZC_PERSISTENT]);
	zc_free(h, c, sizeof(*c));
}

void tmem_client_freeze(tmem_client *c, int frozen)
{
	atomic_store(&c->frozen, frozen != 0);
}
