// Package bench compares this package with other session libraries: the cost of a request
// (peers_test.go, peers), and the behaviour under concurrent requests (elsewhere). It is a
// module of its own, so that other modules do not require those libraries.
package bench

// Libraries are the columns of the table. The others are compared with the first.
var Libraries = []struct{ Name, Module, Text string }{
	{"ours", "github.com/coatcheck/session", "its MemoryStore"},
	{"scs", "github.com/alexedwards/scs/v2", "its memory store; tokens are not signed"},
	{"gorilla-files", "github.com/gorilla/sessions", "FilesystemStore; for the 4 KB its MaxLength is raised"},
	{"gorilla-cookies", "github.com/gorilla/sessions", "CookieStore: the values are in the cookie, signed; the server stores nothing"},
	{"gorillastore", "github.com/coatcheck/session/gorillastore", "the same handlers as gorilla-*, over our MemoryStore"},
	{"gin", "github.com/gin-contrib/sessions", "memstore, under gin.New()"},
	{"fiber", "github.com/gofiber/fiber/v3", "middleware/session in memory, on fasthttp; tokens are not signed"},
	{"icza", "github.com/icza/session", "live pointers in one process's memory; tokens are not signed: the lower bound"},
	{"express", "express-session", "its MemoryStore, under express and Node; whole servers only"},
}

// Cases are the rows of the table and their units. Cases with many sessions take long to
// prepare.
var Cases = []struct {
	Name, Text string
	Many       bool
	Unit       string
}{
	{"bare", "no session library, a handler that reads a cookie", false, "ns/op"},
	{"untouched", "the handler does not use its session", false, "ns/op"},
	{"read", "read one value of three", false, "ns/op"},
	{"read+write", "read and write one value", false, "ns/op"},
	{"new", "a new session with one value", false, "ns/op"},
	{"forged", "a forged cookie, the handler looks for a value", false, "ns/op"},
	{"read-4KB", "read one small value beside one of 4 KB", false, "ns/op"},
	{"read-100", "read one value, of 100 sessions in turn, all read before", false, "ns/op"},
	{"read-100k", "the same, of 100 000 sessions", true, "ns/op"},
	{"read-100k-2", "the same on 2 goroutines, time per request", true, "ns/op"},
	{"heap", "heap per session, of 200 000", true, "B/session"},
	{"server-bare", "whole server on loopback: processor time per request, the handler reads a cookie", false, "cpu-ns/op"},
	{"server-read", "whole server on loopback: the same, read one value of three", false, "cpu-ns/op"},
}
