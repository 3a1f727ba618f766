/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parts of the userfaultfd and pagemap interfaces that distribution
 * headers may lack. Numbers are the kernel's ABI; what the running kernel has
 * is probed at run time (see pager/probe.c), never assumed.
 */
#ifndef TMEM_FRONTSWAP_UFFD_H
#define TMEM_FRONTSWAP_UFFD_H

#include <linux/ioctl.h>
#include <linux/types.h>
#include <linux/userfaultfd.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

#ifndef UFFDIO_MOVE /* Linux 6.8 */
struct uffdio_move {
	__u64 dst;
	__u64 src;
	__u64 len;
	__u64 mode;
	__s64 move; /* bytes moved, or a negative errno */
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif

#ifndef UFFDIO_POISON /* Linux 6.6 */
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

#ifndef PAGEMAP_SCAN /* Linux 6.7 */
#define PAGE_IS_PRESENT (1 << 3)
#define PAGE_IS_PFNZERO (1 << 5)
struct page_region {
	__u64 start, end, categories;
};
struct pm_scan_arg {
	__u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
	__u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif

#ifndef PROCMAP_QUERY /* Linux 6.11 */
struct procmap_query {
	__u64 size, query_flags, query_addr;
	__u64 vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
	__u32 dev_major, dev_minor, vma_name_size, build_id_size;
	__u64 vma_name_addr, build_id_addr;
};
#define PROCMAP_QUERY _IOWR('f', 17, struct procmap_query)
#endif

/* EVENT_FORK needs CAP_SYS_PTRACE; without it forks are met with care (proto/agent.h). */
#define UFFD_FEATURES_FULL (UFFD_FEATURE_EVENT_FORK | UFFD_FEATURES_NEEDED)
/* What the pager cannot work without. */
#define UFFD_FEATURES_NEEDED                                                                       \
	(UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |         \
	 UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON | UFFD_FEATURE_THREAD_ID)
/* And where there is no UFFDIO_MOVE (pager/discard.c); again, with forks and without. */
#define UFFD_FEATURES_OLD_FULL (UFFD_FEATURE_EVENT_FORK | UFFD_FEATURES_OLD)
#define UFFD_FEATURES_OLD                                                                          \
	(UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |         \
	 UFFD_FEATURE_THREAD_ID)

/* /proc/PID/pagemap, a page: what anybody may see of it. */
#define PAGEMAP_PRESENT	  (1ull << 63)
#define PAGEMAP_SWAPPED	  (1ull << 62)
#define PAGEMAP_FILE	  (1ull << 61)
#define PAGEMAP_EXCLUSIVE (1ull << 56) /* mapped once */

#ifndef MADV_COLD
#define MADV_COLD    20 /* Linux 5.4 */
#define MADV_PAGEOUT 21
#endif

#endif
