// express-session as its README sets it up, with the same pages as the Go
// servers of ../elsewhere and ..'s benchmarks. With an argument the cookie has a maxAge too, as in
// the README's other examples, but of ten minutes. It listens on loopback and prints its port.
const express = require('express')
const session = require('express-session')

// A gate holds requests until it is opened, and tells how many it holds.
const gates = new Map()
function gate(name) {
  if (!gates.has(name)) {
    const g = { arrived: 0, awaited: [], opened: null }
    g.opened = new Promise((resolve) => { g.open = resolve })
    gates.set(name, g)
  }
  return gates.get(name)
}
async function wait(req) {
  if (!req.query.gate) return
  const g = gate(req.query.gate)
  g.arrived++
  g.awaited = g.awaited.filter(([n, done]) => g.arrived < n || done())
  await g.opened
}

const app = express()
app.get('/await', async (req, res) => {
  const g = gate(req.query.gate)
  await new Promise((done) => {
    if (g.arrived >= +req.query.n) done()
    else g.awaited.push([+req.query.n, done])
  })
  res.send('ok')
})
app.get('/open', (req, res) => {
  gate(req.query.gate).open()
  res.send('ok')
})

// The pages of ../peers_test.go.
app.get('/bare', (req, res) => res.status(req.headers.cookie ? 200 : 418).send('ok'))

// Here a request waits that has arrived and is not to look at its session yet.
app.use(async (req, res, next) => {
  if (req.query.arrive) await wait({ query: { gate: req.query.arrive } })
  next()
})

app.use(session({
  secret: 'keyboard cat',
  resave: false,
  saveUninitialized: true,
  cookie: process.argv[2] ? { maxAge: 600000 } : {},
}))

app.get('/set', async (req, res) => {
  await wait(req)
  req.session[req.query.key] = req.query.value
  res.send('ok')
})
app.get('/add', async (req, res) => {
  const n = req.session.count || 0
  await wait(req)
  req.session.count = n + 1
  res.send('ok')
})
app.get('/get', (req, res) => res.send(String(req.session[req.query.key] ?? '')))
app.get('/count', (req, res) => res.send(String(req.session.count || 0)))
app.get('/late', (req, res) => {
  res.write('first byte')
  req.session[req.query.key] = req.query.value
  res.end()
})
app.get('/login', (req, res, next) => {
  req.session.regenerate((err) => {
    if (err) return next(err)
    req.session.user = req.query.user
    req.session.save((err) => err ? next(err) : res.send('ok'))
  })
})
app.get('/renew', (req, res, next) => {
  const { cookie, ...values } = req.session
  req.session.regenerate((err) => {
    if (err) return next(err)
    Object.assign(req.session, values)
    req.session.save((err) => err ? next(err) : res.send('ok'))
  })
})
app.get('/look', (req, res) => {
  const user = req.session.user || ''
  req.session[req.query.key] = '1'
  res.send(user)
})
app.get('/logout', (req, res, next) => {
  req.session.user = null
  req.session.save((err) => {
    if (err) return next(err)
    req.session.regenerate((err) => err ? next(err) : res.send('ok'))
  })
})
app.get('/whoami', (req, res) => res.send(req.session.user || ''))

app.get('/fill', (req, res) => {
  Object.assign(req.session, { name: '0123456789abcdef', admin: true, count: 12345 })
  res.send('ok')
})
app.get('/read', (req, res) => res.status(req.session.name ? 200 : 418).send('ok'))

const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.resume().on('end', () => process.exit()) // ends with its parent
