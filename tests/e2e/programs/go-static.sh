# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The same without cgo, which Go links statically: there is nothing that could load the agent.
. "$DIR/go.sh"
GO_CGO=0
SHOULD=refused
WORD="statically linked"
