/* SPDX-License-Identifier: BSD-2-Clause */
/* Fuzz target: operations on zsmalloc. */
#define FUZZ_ZPOOL "zsmalloc"
#include "zpool_ops.h"
