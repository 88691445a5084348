package storetest

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

var touchAndListFaults = []fault{
	{"touches backward", func(s *mapStore) {
		s.touch = func(ctx context.Context, id string, seen, expires time.Time) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			r, ok := s.live(id)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case !ok:
				return session.ErrNotFound
			case expires.After(r.Deadline):
				expires = r.Deadline
			}
			r.LastSeen, r.Expires = seen, expires
			s.records[id] = r
			return nil
		}
	}, "TouchNeverBackward TouchEachByItself"},

	{"touches forward all or nothing", func(s *mapStore) {
		s.touch = func(ctx context.Context, id string, seen, expires time.Time) error {
			is, err := s.goodLoad(ctx, id)
			if err == nil && (seen.Before(is.LastSeen) || expires.Before(is.Expires)) {
				return nil
			}
			return s.goodTouch(ctx, id, seen, expires)
		}
	}, "TouchEachByItself"},

	{"touches past the deadline", func(s *mapStore) {
		s.touch = func(ctx context.Context, id string, seen, expires time.Time) error {
			err := s.goodTouch(ctx, id, seen, expires)
			s.mu.Lock()
			defer s.mu.Unlock()
			if r, ok := s.live(id); ok && err == nil && expires.After(r.Deadline) {
				r.Expires = expires
				s.records[id] = r
			}
			return err
		}
	}, "TouchNeverPastDeadline"},

	{"touches data", func(s *mapStore) {
		s.touch = func(ctx context.Context, id string, seen, expires time.Time) error {
			is, err := s.goodLoad(ctx, id)
			if err != nil {
				return err
			}
			time.Sleep(2 * time.Nanosecond) // reverts a concurrent Save or Delete
			s.mu.Lock()
			s.records[id] = *is
			s.mu.Unlock()
			return s.goodTouch(ctx, id, seen, expires)
		}
		slowly(s)
	}, "DeleteRacingSave TouchRacingSave"},

	{"touches the version", func(s *mapStore) {
		s.touch = func(ctx context.Context, id string, seen, expires time.Time) error {
			err := s.goodTouch(ctx, id, seen, expires)
			s.mu.Lock()
			defer s.mu.Unlock()
			if r, ok := s.live(id); ok && err == nil {
				r.Version++
				s.records[id] = r
			}
			return err
		}
		slowly(s)
	}, `SaveNeverBackward SaveEachClockByItself SaveNeverPastDeadline
		TouchForward TouchNeverBackward TouchEachByItself TouchNeverPastDeadline TouchKeepsTheRest DataPassed
		TouchRacingSave Expired/TouchedInTime`},

	{"touches nothing and returns nil", func(s *mapStore) {
		s.touch = func(ctx context.Context, id string, seen, expires time.Time) error {
			err := s.goodTouch(ctx, id, seen, expires)
			if errors.Is(err, session.ErrNotFound) {
				return nil
			}
			return err
		}
	}, "TouchAbsent TouchDeleted Expired/Touch"},

	{"fails to delete an absent record", func(s *mapStore) {
		s.delete = func(ctx context.Context, id string) error {
			if _, err := s.goodLoad(ctx, id); err != nil {
				return err
			}
			return s.goodDelete(ctx, id)
		}
	}, "DeleteAbsent IDs Expired/Delete"},

	{"deletes nothing", func(s *mapStore) {
		s.delete = func(ctx context.Context, id string) error { return ctx.Err() }
	}, "SaveDeleted TouchDeleted DeleteRemoves ListAfterDelete IDs DeleteRacingSave"},

	{"lists another user", func(s *mapStore) {
		s.list = func(ctx context.Context, user string) ([]*session.Record, error) {
			return s.listIf(ctx, func(r session.Record) bool {
				return user != "" && strings.EqualFold(r.User, user) && s.now().Before(r.Expires)
			})
		}
	}, "Users"},

	{"compares 1023 bytes of a user", func(s *mapStore) {
		s.list = func(ctx context.Context, user string) ([]*session.Record, error) {
			return s.listIf(ctx, func(r session.Record) bool {
				return user != "" && r.User[:min(len(r.User), 1023)] == user[:min(len(user), 1023)] && s.now().Before(r.Expires)
			})
		}
	}, "Users"},

	{"lists all users", func(s *mapStore) {
		s.list = func(ctx context.Context, user string) ([]*session.Record, error) {
			return s.listIf(ctx, func(r session.Record) bool {
				return user != "" && s.now().Before(r.Expires)
			})
		}
	}, "SaveWithoutUser ListOfTheUser Times Users ListRacingCreate"},

	{"lists the anonymous", func(s *mapStore) {
		s.list = func(ctx context.Context, user string) ([]*session.Record, error) {
			return s.listIf(ctx, func(r session.Record) bool { return r.User == user && s.now().Before(r.Expires) })
		}
	}, "ListWithoutUser"},

	{"lists from a stale index", func(s *mapStore) {
		index := map[string]map[string]*session.Record{}
		s.create = func(ctx context.Context, r *session.Record) error {
			err := s.goodCreate(ctx, r)
			s.mu.Lock()
			defer s.mu.Unlock()
			if index[r.User] == nil {
				index[r.User] = map[string]*session.Record{}
			}
			if err == nil {
				index[r.User][r.ID] = r
			}
			return err
		}
		s.list = func(ctx context.Context, user string) (list []*session.Record, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for id, r := range index[user] {
				if now, ok := s.live(id); ok && now.User == user {
					r = &now
				}
				if user != "" && s.now().Before(r.Expires) {
					list = append(list, r)
				}
			}
			return list, ctx.Err()
		}
	}, "SaveDeleted SaveOfThePast SaveWithoutUser TouchDeleted ListAfterDelete"},

	{"removes entries from an index before their record is stored", func(s *mapStore) {
		index := map[string]string{} // users by id
		s.create = func(ctx context.Context, r *session.Record) error {
			s.mu.Lock()
			index[r.ID] = r.User
			s.mu.Unlock()
			time.Sleep(2 * time.Nanosecond)
			return s.goodCreate(ctx, r)
		}
		s.list = func(ctx context.Context, user string) ([]*session.Record, error) {
			time.Sleep(1 * time.Nanosecond)
			s.mu.Lock()
			for id := range index {
				if _, ok := s.live(id); !ok {
					delete(index, id)
				}
			}
			s.mu.Unlock()
			return s.listIf(ctx, func(r session.Record) bool {
				return index[r.ID] == user && r.User == user && user != "" && s.now().Before(r.Expires)
			})
		}
	}, "ListRacingCreate"},

	{"lists what was created", func(s *mapStore) {
		created := map[string]session.Record{}
		s.create = func(ctx context.Context, r *session.Record) error {
			s.mu.Lock()
			if _, ok := s.live(r.ID); !ok {
				created[r.ID] = *r
			}
			s.mu.Unlock()
			return s.goodCreate(ctx, r)
		}
		s.list = func(ctx context.Context, user string) ([]*session.Record, error) {
			list, err := s.goodList(ctx, user)
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, r := range list {
				r.Data = created[r.ID].Data
			}
			return list, err
		}
	}, "SaveReplaces SaveOfThePast SaveNeverBackward ListAfterSave Expired/SavedInTime"},

	{"lists a page", func(s *mapStore) {
		s.list = func(ctx context.Context, user string) ([]*session.Record, error) {
			list, err := s.goodList(ctx, user)
			return list[:min(len(list), 20)], err
		}
	}, "ListOfMany"},

	{"ignores the context", func(s *mapStore) {
		s.load = func(_ context.Context, id string) (*session.Record, error) {
			return s.goodLoad(context.Background(), id)
		}
		s.list = func(_ context.Context, user string) ([]*session.Record, error) {
			return s.goodList(context.Background(), user)
		}
	}, "EndedContext"},

	{"returns ErrNotFound when its context has ended", func(s *mapStore) {
		s.touch = func(ctx context.Context, id string, seen, expires time.Time) error {
			if s.goodTouch(ctx, id, seen, expires) != nil {
				return session.ErrNotFound
			}
			return nil
		}
	}, "EndedContext"},
}

// slowly lets a Delete run after a Touch has begun, and a Save after the Delete.
func slowly(s *mapStore) {
	s.delete = func(ctx context.Context, id string) error {
		time.Sleep(1 * time.Nanosecond)
		return s.goodDelete(ctx, id)
	}
	s.save = func(ctx context.Context, r *session.Record, old uint64) error {
		time.Sleep(3 * time.Nanosecond)
		return s.goodSave(ctx, r, old)
	}
}
