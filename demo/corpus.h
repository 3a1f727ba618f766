/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The text of a set of folders as a stream of small documents, the same on
 * every run: files in the order of their names, .gz files unpacked, binary
 * files left out, long files cut at line ends. When the text is used up and
 * more is wanted, it comes again with some of its words changed, so that a
 * machine with little text still fills an index with different words.
 */
#ifndef DEMO_CORPUS_H
#define DEMO_CORPUS_H

#include <stddef.h>
#include <stdint.h>

#define CORPUS_DOC_MAX 16384 /* bytes of one document, about */

struct corpus;

struct corpus_doc {
	const char *path; /* valid until the next call */
	const char *text; /* not NUL-terminated; valid until the next call */
	size_t len;
	unsigned round; /* 0: as it is on disk */
};

/* dirs: n names of folders or files. NULL with a line on stderr when there is no file at all. */
struct corpus *corpus_open(char *const dirs[], int n);
void corpus_close(struct corpus *c);
/* 1: a document; 0: a whole round gave no text, so there will never be any. */
int corpus_next(struct corpus *c, struct corpus_doc *doc);

#endif
