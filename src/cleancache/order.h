/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel orders requests: what one of our threads did before it answered comes before what
 * another does with what the kernel learnt by that answer: a node's number, a handle, that nobody
 * uses it any more. It goes through a device, further than a tool that looks for races can see.
 * Builds with TSan are told: each answer is a release, each request an acquire.
 */
#ifndef TMEM_CLEANCACHE_ORDER_H
#define TMEM_CLEANCACHE_ORDER_H

#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *at);
void __tsan_release(void *at);
#define CC_ORDER_ASKED(m)     __tsan_acquire(m)
#define CC_ORDER_ANSWERS(req) __tsan_release(fuse_req_userdata(req))
/* clang-format off */
#define fuse_reply_attr(req, ...)     (CC_ORDER_ANSWERS(req), fuse_reply_attr(req, __VA_ARGS__))
#define fuse_reply_buf(req, ...)      (CC_ORDER_ANSWERS(req), fuse_reply_buf(req, __VA_ARGS__))
#define fuse_reply_create(req, ...)   (CC_ORDER_ANSWERS(req), fuse_reply_create(req, __VA_ARGS__))
#define fuse_reply_entry(req, ...)    (CC_ORDER_ANSWERS(req), fuse_reply_entry(req, __VA_ARGS__))
#define fuse_reply_err(req, ...)      (CC_ORDER_ANSWERS(req), fuse_reply_err(req, __VA_ARGS__))
#define fuse_reply_ioctl(req, ...)    (CC_ORDER_ANSWERS(req), fuse_reply_ioctl(req, __VA_ARGS__))
#define fuse_reply_lock(req, ...)     (CC_ORDER_ANSWERS(req), fuse_reply_lock(req, __VA_ARGS__))
#define fuse_reply_lseek(req, ...)    (CC_ORDER_ANSWERS(req), fuse_reply_lseek(req, __VA_ARGS__))
#define fuse_reply_none(req)	      (CC_ORDER_ANSWERS(req), fuse_reply_none(req))
#define fuse_reply_open(req, ...)     (CC_ORDER_ANSWERS(req), fuse_reply_open(req, __VA_ARGS__))
#define fuse_reply_readlink(req, ...) (CC_ORDER_ANSWERS(req), fuse_reply_readlink(req, __VA_ARGS__))
#define fuse_reply_statfs(req, ...)   (CC_ORDER_ANSWERS(req), fuse_reply_statfs(req, __VA_ARGS__))
#define fuse_reply_write(req, ...)    (CC_ORDER_ANSWERS(req), fuse_reply_write(req, __VA_ARGS__))
#define fuse_reply_xattr(req, ...)    (CC_ORDER_ANSWERS(req), fuse_reply_xattr(req, __VA_ARGS__))
/* clang-format on */
#else
#define CC_ORDER_ASKED(m) ((void)(m))
#endif

#endif
