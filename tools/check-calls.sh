#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# System calls, malloc and stdio only in src/os, src/frontswap, src/cleancache and src/cli: everything else must
# run under a simulated system. Fails on a call, or on a system header, in another folder.
#
#   tools/check-calls.sh [DIR]     DIR: the top of the source tree
set -u
ROOT=${1:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
cd "$ROOT/src" || exit 1

CALLS='malloc|calloc|realloc|free|aligned_alloc|posix_memalign|memalign|strn?dup|v?asprintf'
CALLS+='|mmap|munmap|mremap|madvise|mprotect|mlock|mincore|brk|sbrk'
CALLS+='|open|openat|creat|close|read|write|pread|pwrite|readv|writev|lseek|ftruncate|fallocate'
CALLS+='|fsync|fdatasync|unlink|rename|stat|fstat|ioctl|fcntl|dup2?|pipe2?|poll|epoll_[a-z0-9_]+'
CALLS+='|socket|bind|listen|accept4?|connect|sendmsg|recvmsg|send|recv|socketpair'
CALLS+='|fork|vfork|clone|execv[ep]*|wait|waitpid|kill|signal|sigaction|syscall|abort|exit|_exit'
CALLS+='|pthread_[a-z_]+|sem_[a-z]+|clock_[a-z]+|time|gettimeofday|nanosleep|u?sleep|sched_[a-z_]+'
CALLS+='|getenv|setenv|fopen|fdopen|fclose|fread|fwrite|fprintf|vfprintf|printf|vprintf|puts|fputs'
CALLS+='|perror|rand|random|srand|getrandom'
# fcntl.h is not among them: os_file_open() takes its flags.
HEADERS='unistd|pthread|signal|time|semaphore|poll|sched|dirent|sys/[a-z]+|linux/[a-z_]+|netinet/[a-z]+|threads'

# The text without comments and strings, lines kept.
strip() {
	awk '{
		line = $0; out = ""
		while (line != "") {
			if (inside) {
				i = index(line, "*/")
				if (!i) { line = ""; break }
				line = substr(line, i + 2); inside = 0
			} else if (match(line, /\/\*|\/\/|"([^"\\]|\\.)*"|\047([^\047\\]|\\.)*\047/)) {
				t = substr(line, RSTART, RLENGTH)
				out = out substr(line, 1, RSTART - 1)
				line = substr(line, RSTART + RLENGTH)
				if (t == "/*") inside = 1
				else if (t == "//") line = ""
				else out = out "\"\""
			} else { out = out line; line = "" }
		}
		print out
	}' "$1"
}

bad=0
while read -r file; do
	# Members (->free(), .free =) and declarations of members ((*free)(...)) are no calls.
	found=$(
		strip "$file" | grep -nE "(^|[^A-Za-z0-9_.>*])($CALLS)[[:space:]]*\(" |
			sed "s|^\([0-9]*\):[[:space:]]*|src/$file:\1: a call that belongs in src/os: |"
		grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*<($HEADERS)\.h>" "$file" |
			sed "s|^\([0-9]*\):|src/$file:\1: a header that belongs in src/os: |"
	)
	if [ -n "$found" ]; then
		echo "$found"
		bad=$((bad + $(wc -l <<<"$found")))
	fi
done < <(find . -name '*.[ch]' ! -path './os/*' ! -path './frontswap/*' ! -path './cleancache/*' ! -path './cli/*' | sed 's|^\./||' | sort)
echo "calls: $bad wrong"
[ "$bad" = 0 ]
