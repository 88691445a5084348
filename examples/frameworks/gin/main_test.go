package main

import (
	"testing"

	"github.com/coatcheck/session/examples/frameworks/apptest"
)

func TestApp(t *testing.T) { apptest.Run(t, app) }
