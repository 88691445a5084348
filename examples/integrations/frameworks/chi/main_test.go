package main

import (
	"testing"

	"github.com/coatcheck/session/examples/integrations/frameworks/apptest"
)

func TestApp(t *testing.T) { apptest.Run(t, app) }
