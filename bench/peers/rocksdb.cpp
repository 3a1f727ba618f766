// SPDX-License-Identifier: BSD-2-Clause
/*
 * RocksDB's CompressedSecondaryCache (lz4) as a store for `tmem bench peers`:
 * the tier that keeps compressed blocks below RocksDB's block cache.
 *
 * A page is inserted twice. The first insertion of a key only leaves a
 * placeholder (the cache admits what it sees a second time); the second one
 * compresses and stores. Lookups are asked not to erase. Its memory comes from
 * the C library's allocator, as it does in RocksDB unless told otherwise.
 */
#include "cli/bench_peer.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <rocksdb/cache.h>
#include <rocksdb/secondary_cache.h>
#include <rocksdb/version.h>

namespace {

using rocksdb::Cache;
using rocksdb::Slice;
using rocksdb::Status;

struct Store {
	const peer_setup *setup;
	std::shared_ptr<rocksdb::SecondaryCache> cache;
};

/* Block cache keys are 16 bytes: a file's part and an offset's. */
struct Key {
	uint64_t word[2];
	explicit Key(uint64_t page) : word{page >> 20, page * PEER_PAGE} {}
	Slice slice() const { return Slice(reinterpret_cast<const char *>(word), sizeof(word)); }
};

size_t page_size(void *)
{
	return PEER_PAGE;
}

Status page_save(void *from, size_t offset, size_t length, void *out)
{
	memcpy(out, static_cast<char *>(from) + offset, length);
	return Status::OK();
}

void page_delete(const Slice &, void *) {}

const Cache::CacheItemHelper helper(page_size, page_save, page_delete);

void *open_store(const peer_setup *s, char *why, size_t size)
{
	rocksdb::CompressedSecondaryCacheOptions o;

	o.capacity = s->count * PEER_PAGE * 2; // nothing is to be thrown out
	o.compression_type = rocksdb::kLZ4Compression;
	try {
		auto *store = new Store{s, rocksdb::NewCompressedSecondaryCache(o)};
		return store;
	} catch (const std::exception &e) {
		snprintf(why, size, "%s", e.what());
		return nullptr;
	}
}

int put(void *peer, unsigned, uint64_t first, unsigned n)
{
	auto *s = static_cast<Store *>(peer);

	for (uint64_t i = first; i < first + n; i++) {
		void *page = const_cast<uint8_t *>(s->setup->pages + i * PEER_PAGE);
		Key key(i);

		for (int twice = 0; twice < 2; twice++)
			if (!s->cache->Insert(key.slice(), page, &helper).ok())
				return -ENOSPC;
	}
	return 0;
}

int get(void *peer, unsigned, uint64_t first, unsigned n, uint8_t *to)
{
	auto *s = static_cast<Store *>(peer);

	for (uint64_t i = first; i < first + n; i++, to += PEER_PAGE) {
		// What RocksDB would do is make a block of it; a copy is the least that can be done.
		Cache::CreateCallback create = [to](const void *buf, size_t size, void **out,
						    size_t *charge) {
			if (size != PEER_PAGE)
				return Status::Corruption("size");
			memcpy(to, buf, size);
			*out = to;
			*charge = size;
			return Status::OK();
		};
		bool kept = false;
		Key key(i);
		auto handle = s->cache->Lookup(key.slice(), create, true, false, kept);

		if (!handle || handle->Value() != to)
			return -ENODATA;
	}
	return 0;
}

void close_store(void *peer)
{
	delete static_cast<Store *>(peer);
}

#define TEXT_(x) #x
#define TEXT(x)	 TEXT_(x)

const peer_ops ops = {
	"rocksdb lz4",
	"librocksdb-dev",
	"CompressedSecondaryCache of RocksDB " TEXT(ROCKSDB_MAJOR) "." TEXT(ROCKSDB_MINOR) "." TEXT(
		ROCKSDB_PATCH) "; each page inserted twice, since the first time only leaves a "
			       "placeholder; 16-byte keys",
	open_store,
	put,
	get,
	nullptr,
	nullptr,
	close_store,
};

} // namespace

extern "C" {
__attribute__((visibility("default"))) extern const peer_export tmem_peer;
const peer_export tmem_peer = {PEER_ABI, &ops};
}
