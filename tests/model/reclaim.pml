/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The protocol of src/zcache/reclaim.c and pam_local.c, small enough to be
 * looked at in every order: one handle in one leaf, zpages in three slots of
 * the allocator, and at once
 *
 *   reader     a get that keeps: shard, word, pin, unlock, read, unpin
 *   taker      a get that removes: the same, and the word is taken out
 *   writer     a put: a new zpage is linked, what was replaced is dropped
 *   evictor    bottom-up by an entry: shard, stamp compared, words taken out, dropped
 *   mover      bottom-up from the allocator: class lock, shard, word == handle,
 *              copy, word exchanged, old place freed
 *
 * Each zpage holds a value (the version that was put). Claims:
 *   - who reads under a pin reads what the word named when he took it
 *   - a place is freed once, and never while somebody has it pinned
 *   - at the end: references = words, and nothing is left over
 *
 * Built with -DMUTANT=n one step is wrong, and the checker must find it:
 *   1  the evictor does not compare stamps under the lock (it looks before it)
 *   2  free does not wait for pins (dying left out)
 *   3  the mover does not compare the word with the handle under the lock
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define PLACES 3
#define NONE   PLACES

bool shard, class;		 /* mutexes */
byte word = NONE;		 /* in the leaf: which place, or NONE */
byte stamp = 0;			 /* beside it */
byte entry = 0;			 /* the queue's entry: the stamp it was made with */
bool used[PLACES], dying[PLACES];
byte pins[PLACES], value[PLACES];
byte version = 0;		 /* of the last put that was linked */
byte done = 0;

#define lock(m)	  atomic { !m -> m = true }
#define unlock(m) m = false

/* The slot goes back; only when it is used and nobody has it pinned. */
inline release(p)
{
	assert(used[p] && pins[p] == 0);
	used[p] = false;
	dying[p] = false;
	value[p] = 0
}

/* The last reference is given up. */
inline drop(p)
{
	lock(class);
	atomic {
		assert(used[p] && !dying[p]);
		if
		:: MUTANT == 2 || pins[p] == 0 -> release(p)
		:: else -> dying[p] = true
		fi
	};
	unlock(class)
}

inline unpin(p)
{
	atomic {
		assert(pins[p] > 0);
		pins[p]--;
		if
		:: dying[p] && pins[p] == 0 -> release(p)
		:: else
		fi
	}
}

/* A free place with a value; NONE when there is no room. Class lock held by the caller or not
 * contended: choosing is one step. */
inline allocate(p, v)
{
	atomic {
		if
		:: !used[0] -> p = 0
		:: used[0] && !used[1] -> p = 1
		:: used[0] && used[1] && !used[2] -> p = 2
		:: else -> p = NONE
		fi;
		if
		:: p != NONE -> used[p] = true; dying[p] = false; value[p] = v
		:: else
		fi
	}
}

proctype reader(bool remove)
{
	byte p, v;

	lock(shard);
	p = word;
	if
	:: p != NONE ->
		v = value[p];
		assert(v == version);	/* never older than the last put */
		pins[p]++;
		if
		:: remove -> word = NONE
		:: else
		fi;
		unlock(shard);
		assert(value[p] == v);	/* checksum */
		assert(value[p] == v);	/* decompress */
		if
		:: remove ->
			unpin(p);
			drop(p)
		:: else -> unpin(p)
		fi
	:: else -> unlock(shard)
	fi;
	done++
}

proctype writer()
{
	byte p, old, n = 0;

	do
	:: n < 2 ->
		lock(class);
		allocate(p, n + 1);
		unlock(class);
		if
		:: p != NONE ->
			lock(shard);
			old = word;
			word = p;
			stamp = n + 1;
			version = n + 1;
			unlock(shard);
			entry = n + 1;		/* queued */
			if
			:: old != NONE -> drop(old)
			:: else
			fi
		:: else ->			/* refused: the handle is emptied */
			lock(shard);
			old = word;
			word = NONE;
			unlock(shard);
			if
			:: old != NONE -> drop(old)
			:: else
			fi
		fi;
		n++
	:: n == 2 -> break
	od;
	done++
}

proctype evictor()
{
	byte e, p = NONE, early;

	e = entry;				/* dequeued: may be stale by now */
	if
	:: e != 0 ->
		early = word;
		lock(shard);
		if
		:: MUTANT == 1 ->		/* what was seen before the lock */
			p = early;
			word = NONE
		:: MUTANT != 1 && word != NONE && stamp == e ->
			p = word;
			word = NONE
		:: else
		fi;
		unlock(shard);
		if
		:: p != NONE -> drop(p)
		:: else
		fi
	:: else
	fi;
	done++
}

proctype mover()
{
	byte from, to;

	lock(class);
	/* A zpage that is allocated and not pinned; pins may come until the shard is ours. */
	if
	:: used[0] && !dying[0] && pins[0] == 0 -> from = 0
	:: used[1] && !dying[1] && pins[1] == 0 -> from = 1
	:: else -> from = NONE
	fi;
	if
	:: from != NONE ->
		allocate(to, 0);
		if
		:: to != NONE ->
			lock(shard);
			if
			:: word == from || (MUTANT == 3 && word != NONE) ->
				value[to] = value[from];
				word = to;
				unlock(shard);
				atomic {
					if
					:: pins[from] == 0 -> release(from)
					:: else -> dying[from] = true
					fi
				}
			:: else ->
				unlock(shard);
				atomic { release(to) }
			fi
		:: else
		fi
	:: else
	fi;
	unlock(class);
	done++
}

init {
	byte words, i;

	atomic {
		run writer();
		run reader(false);
		run reader(true);
		run evictor();
		run mover()
	};
	done == 5;
	atomic {
		i = 0;
		words = 0;
		do
		:: i < PLACES ->
			assert(!dying[i] && pins[i] == 0);
			if
			:: used[i] -> words++; assert(word == i)
			:: else
			fi;
			i++
		:: i == PLACES -> break
		od;
		assert(words == (word != NONE -> 1 : 0))
	}
}
