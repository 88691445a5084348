// The Express app. Only resave: false is there for the Go app's sake, and it is right
// without one, too.
'use strict';

const express = require('express');
const session = require('express-session');
const { RedisStore } = require('connect-redis');
const { createClient } = require('redis');

const production = process.env.NODE_ENV === 'production';

async function main() {
  const client = createClient({ url: process.env.REDIS_URL });
  client.on('error', (err) => console.error('redis:', err.message));
  await client.connect();

  const app = express();
  // Proxies in front: the door, and in production the one with TLS before it. Express
  // believes their X-Forwarded-Proto, or a secure cookie is never set.
  app.set('trust proxy', production ? 2 : 1);
  app.use(express.urlencoded({ extended: false }));
  app.use(session({
    store: new RedisStore({ client }),
    secret: process.env.SESSION_SECRET,
    resave: false,
    saveUninitialized: false,
    cookie: {
      httpOnly: true,
      secure: production,
      sameSite: 'lax',
      maxAge: 24 * 60 * 60 * 1000,
    },
  }));

  app.get('/', (req, res) => {
    const { userId } = req.session;
    if (!userId) {
      return res.send(page('Express', `
        <p>Nobody is logged in.</p>
        <form method="post" action="/login">
          <label>Name <input name="user" required maxlength="50" autocomplete="username"></label>
          <button>Log in at Express</button>
        </form>`));
    }
    req.session.expressViews = (req.session.expressViews || 0) + 1;
    return res.send(page('Express', `
      <p>Hello, ${escape(userId)}. Express has shown you this page ${req.session.expressViews} times${
        req.session.goViews ? `, and Go its dashboard ${req.session.goViews} times` : ''}.</p>
      <p><a href="/dashboard">To the dashboard, which is Go's</a></p>`));
  });

  app.post('/login', (req, res, next) => {
    // A new id for who logs in, and all is stored before the browser goes to Go.
    req.session.regenerate((err) => {
      if (err) return next(err);
      req.session.userId = req.body.user; // the password is right
      return req.session.save((failed) => (failed ? next(failed) : res.redirect('/dashboard')));
    });
  });

  const server = app.listen(Number(process.env.PORT), '127.0.0.1');
  server.on('error', (err) => { throw err; });
}

function escape(text) {
  return String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

function page(by, body) {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${by}</title><link rel="stylesheet" href="/style.css"><main class="${by.toLowerCase()}"><h1>${by}</h1>${body}</main></html>`;
}

main();
