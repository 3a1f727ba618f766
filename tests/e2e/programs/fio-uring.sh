# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# fio with io_uring and registered buffers.
. "$DIR/fio.sh"
FIO=(--ioengine=io_uring --fixedbufs=1 --registerfiles=1)
