// Package bench measures this session library beside others: what a request
// costs (peers_test.go, peers), and what requests that overlap do to each other
// (elsewhere). It is a module of its own, so that nobody else needs theirs.
package bench

// Libraries are the columns of the table, the first what the others are
// compared with.
var Libraries = []struct{ Name, Module, Text string }{
	{"ours", "github.com/coatcheck/session", "its MemoryStore"},
	{"scs", "github.com/alexedwards/scs/v2", "its memory store; tokens are not signed"},
	{"gorilla-files", "github.com/gorilla/sessions", "FilesystemStore; for the 4 KB its MaxLength is raised"},
	{"gorilla-cookies", "github.com/gorilla/sessions", "CookieStore: the values are in the cookie, signed, and nothing on the server"},
	{"gin", "github.com/gin-contrib/sessions", "memstore, under gin.New()"},
	{"fiber", "github.com/gofiber/fiber/v3", "middleware/session in memory, on fasthttp; tokens are not signed"},
	{"icza", "github.com/icza/session", "live pointers in one process's memory; tokens are not signed: the floor"},
	{"express", "express-session", "its MemoryStore, under express and Node; whole servers only"},
}

// Cases are its rows, and what they are measured in. Those with many sessions
// take long to prepare.
var Cases = []struct {
	Name, Text string
	Many       bool
	Unit       string
}{
	{"bare", "no session library, a handler that reads a cookie", false, "ns/op"},
	{"untouched", "the handler does not ask for its session", false, "ns/op"},
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
