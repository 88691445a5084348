package storetest

import (
	"testing"

	"github.com/coatcheck/session"
)

func TestMemoryStoreUnderManagers(t *testing.T) {
	RunManagers(t, func(t *testing.T) session.Store { return session.NewMemoryStore(nil) })
}
