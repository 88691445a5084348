// An Express app whose sessions a Go service shares. The environment configures it, and the requests
// say what it does.
'use strict';

const express = require('express');
const passport = require('passport');
const { EventEmitter } = require('node:events');

const env = process.env;
const session = require(env.EXPRESS_SESSION || 'express-session');
const gates = new EventEmitter(); // gates that slow requests wait for

async function newStore() {
  if (env.POSTGRES) {
    const Simple = require('connect-pg-simple')(session);
    return new Simple({ conString: env.POSTGRES, pruneSessionInterval: false });
  }
  const client = require('redis').createClient({ url: env.REDIS });
  await client.connect();
  const connect = require(env.CONNECT_REDIS || 'connect-redis');
  return new (connect.RedisStore || connect.default)({ client });
}

async function main() {
  const store = await newStore();
  let late = 0; // delay of a write of a record, in milliseconds
  const set = store.set;
  store.set = (...args) => { setTimeout(() => set.apply(store, args), late); };

  const app = express();
  app.use(session({
    store,
    secret: JSON.parse(env.SECRETS),
    resave: Boolean(env.RESAVE),
    saveUninitialized: false,
    rolling: Boolean(env.ROLLING),
    cookie: env.MAX_AGE ? { maxAge: Number(env.MAX_AGE), sameSite: 'lax' } : {},
  }));
  app.use(require('connect-flash')());
  app.use(passport.initialize());
  app.use(passport.session());
  passport.serializeUser((user, done) => done(null, user.id));
  passport.deserializeUser((id, done) => done(null, { id }));

  app.get('/get', (req, res) => {
    const { cookie, ...values } = req.session;
    res.json({ id: req.sessionID, user: req.user && req.user.id, values, maxAge: cookie.originalMaxAge });
  });
  app.get('/set', (req, res) => {
    Object.assign(req.session, JSON.parse(req.query.values));
    res.json(req.sessionID);
  });
  app.get('/slow', (req, res) => { // loads the session, and changes it when the gate opens
    gates.emit(`inside${req.query.gate}`);
    gates.once(`open${req.query.gate}`, () => {
      Object.assign(req.session, JSON.parse(req.query.values));
      res.json(req.sessionID);
    });
  });
  app.get('/inside', (req, res) => { // answers when the slow request has loaded its session
    if (gates.listenerCount(`open${req.query.gate}`) > 0) return res.end();
    gates.once(`inside${req.query.gate}`, () => res.end());
  });
  app.get('/open', (req, res) => { gates.emit(`open${req.query.gate}`); res.end(); });
  app.get('/destroy', (req, res, next) => req.session.destroy((err) => (err ? next(err) : res.end())));
  app.get('/regenerate', (req, res, next) => req.session.regenerate((err) => (err ? next(err) : res.json(req.sessionID))));
  app.get('/login', (req, res, next) => req.login({ id: req.query.user }, (err) => (err ? next(err) : res.json(req.sessionID))));
  app.get('/logout', (req, res, next) => req.logout((err) => (err ? next(err) : res.end())));
  app.get('/flash', (req, res) => { req.flash(req.query.kind, req.query.text); res.end(); });
  app.get('/flashes', (req, res) => res.json(req.flash()));
  app.get('/age', (req, res) => { req.session.cookie.maxAge = Number(req.query.ms); req.session.aged = Number(req.query.ms); res.end(); });
  app.get('/late', (req, res) => { late = Number(req.query.ms); res.end(); });
  app.get('/redirect', (req, res) => { req.session.page = 'first'; res.redirect(req.query.to); });

  const server = app.listen(Number(env.PORT), '127.0.0.1');
  server.on('error', (err) => { throw err; });
}

main();
