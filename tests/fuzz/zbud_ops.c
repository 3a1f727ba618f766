/* SPDX-License-Identifier: BSD-2-Clause */
/* Fuzz target: operations on zbud. */
#define FUZZ_ZPOOL "zbud"
#include "zpool_ops.h"
