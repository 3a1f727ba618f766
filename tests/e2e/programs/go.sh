# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# A Go program, linked dynamically (cgo): goroutines, maps, the concurrent collector, own system
# calls, own stacks.
PACKAGES=(golang-go gcc libc6-dev)
GO_CGO=1
prepare() {
	cat >work.go <<'GO'
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"sort"
	"sync"
)

type item struct {
	id   int
	name string
	data []byte
	next *item
}

func work(seed, n int) string {
	m := map[string]*item{}
	var last *item
	x := uint32(seed)
	for i := 0; i < n; i++ {
		x = x*1103515245 + 12345
		it := &item{i, fmt.Sprintf("item %d of %d", x%9973, n), make([]byte, 200), last}
		for k := range it.data {
			it.data[k] = byte(i * (k%5 + 1))
		}
		m[fmt.Sprintf("key %d", i)] = it
		last = it
	}
	h := sha256.New()
	for r := 0; r < 3; r++ {
		for it := last; it != nil; it = it.next {
			for k := range it.data {
				if it.data[k] != byte(it.id*(k%5+1)) {
					fmt.Fprintln(os.Stderr, "wrong byte in item", it.id)
					os.Exit(1)
				}
			}
		}
		keys := make([]string, 0, len(m))
		for k := range m {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			h.Write([]byte(m[k].name))
		}
		runtime.GC()
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func deep(n int) int { // stacks that grow and are copied
	var pad [64]int
	pad[n%64] = n
	if n == 0 {
		return 0
	}
	return deep(n-1) + pad[n%64] - n + 1
}

func main() {
	user.Current()
	var wg sync.WaitGroup
	out := make([]string, 4)
	for g := range out {
		wg.Add(1)
		go func(g int) { defer wg.Done(); out[g] = work(g, 60000) }(g)
	}
	for g := 0; g < 200; g++ {
		wg.Add(1)
		go func(g int) {
			defer wg.Done()
			if deep(500+g) != 500+g {
				fmt.Println("WRONG stack", g)
			}
		}(g)
	}
	for i := 0; i < 5; i++ {
		b, err := exec.Command("echo", fmt.Sprint("child ", i)).Output()
		if err != nil {
			fmt.Println(err)
		}
		fmt.Print(string(b))
	}
	wg.Wait()
	for _, s := range out {
		fmt.Println(s)
	}
}
GO
	CGO_ENABLED=$GO_CGO GOCACHE=$PWD/cache HOME=$PWD GO111MODULE=off go build -o work work.go
}
workload() { "${RUN[@]}" "$P/work"; }
