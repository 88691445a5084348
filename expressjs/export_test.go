package expressjs

// SignForTest is the cookie of an id.
func SignForTest(secret, id string) string {
	return encodeURIComponent("s:" + sign([]byte(secret), id))
}
