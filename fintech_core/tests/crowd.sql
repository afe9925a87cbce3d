-- A crowd: so many rows that PostgreSQL reads an index wherever there is one that fits. `crowd.py`
-- runs it, as the owner of the tables, past triggers and foreign keys, and names its parameters.

-- An id is a UUID of version 7, so its order is the order of making.
CREATE FUNCTION pg_temp.moment(n bigint) RETURNS timestamptz IMMUTABLE LANGUAGE sql
    RETURN timestamptz %(begin)s + n * interval '20 minutes';
CREATE FUNCTION pg_temp.id(kind int, n bigint) RETURNS uuid IMMUTABLE LANGUAGE sql
    RETURN (lpad(to_hex((extract(epoch FROM pg_temp.moment(n)) * 1000)::bigint), 12, '0')
            || '70008' || lpad(to_hex(kind), 3, '0') || lpad(to_hex(n), 12, '0'))::uuid;

-- People ------------------------------------------------------------------------------------------

-- Numbers do not follow the order of joining, so names and wealth do not. 7919 is prime.
CREATE TEMP TABLE people AS
SELECT n, pg_temp.id(1, joined) AS user_id, pg_temp.id(2, joined) AS wallet_id,
       pg_temp.moment(joined) AS joined_at
  FROM (SELECT n, mod(n * 7919, %(people)s) AS joined FROM generate_series(1, %(people)s) n) made;

INSERT INTO users_user (id, email, phone_number, first_name, last_name, password, is_active,
    is_staff, is_superuser, date_joined, kyc_status, kyc_rejection_reason, address_line1,
    address_line2, city, postal_code, country)
SELECT user_id, 'crowd' || n || '@example.com', '+4930' || lpad(n::text, 7, '0'),
       chr(65 + mod(n, 26)) || 'lice', chr(65 + mod(n / 26, 26)) || 'rcher', '!',
       mod(n, 200) <> 0, mod(n, 500) = 499, false, joined_at,
       CASE WHEN mod(n, 100) = 7 THEN 'pending' WHEN mod(n, 100) = 9 THEN 'rejected'
            WHEN mod(n, 20) = 3 THEN 'not_submitted' ELSE 'approved' END,
       CASE WHEN mod(n, 100) = 9 THEN 'Unreadable.' ELSE '' END, '', '', '', '', ''
  FROM people;

INSERT INTO users_kycsubmission (id, user_id, document_type, document_number, date_of_birth,
    address_line1, address_line2, city, postal_code, country, document_file, document_media_type,
    document_sha256, created_at)
SELECT pg_temp.id(3, n), user_id, 'passport', '', '1990-05-17', '', '', '', '', 'GB', '', '', '',
       pg_temp.moment(n)
  FROM people;

INSERT INTO users_kycstep (user_id, submission_id, actor_id, from_status, to_status, reason)
SELECT user_id, NULL, NULL, '', 'not_submitted', '' FROM people
 UNION ALL
SELECT user_id, pg_temp.id(3, n), user_id, 'not_submitted', 'pending', '' FROM people;

INSERT INTO users_kycdocumentaccess (submission_id, reader_id)
SELECT pg_temp.id(3, n), user_id FROM people WHERE n <= %(some)s;

-- Money -------------------------------------------------------------------------------------------

-- Who paid whom, in this order. First a deposit for each, numbered below 1; a quarter of what
-- follows is person 1's, and of the newest every fifth is a deposit again.
CREATE TEMP TABLE movements AS
SELECT n - %(active)s AS n, pg_temp.id(4, n) AS id, 'deposit' AS type, NULL::int AS payer,
       n AS payee, 100000.00 AS amount, pg_temp.moment(n) AS at
  FROM generate_series(1, %(active)s) n
 UNION ALL
SELECT n, pg_temp.id(4, %(active)s + n),
       CASE WHEN n <= %(captured)s THEN 'capture' WHEN is_deposit THEN 'deposit'
            ELSE 'transfer' END,
       CASE WHEN is_deposit THEN NULL WHEN mod(n, 8) = 0 THEN 1 ELSE one END,
       CASE WHEN mod(n, 8) = 4 THEN 1
            ELSE 2 + mod(one - 1 + mod(n, %(active)s - 3), %(active)s - 1) END,
       1.00 + mod(n, 50), pg_temp.moment(%(active)s + n)
  FROM (SELECT n, 2 + mod(n * 7, %(active)s - 1) AS one,
               n > %(others)s AND mod(n, 10) IN (3, 7) AS is_deposit
          FROM generate_series(1, %(movements)s) n) made;

CREATE TEMP TABLE sides AS
SELECT n, person, entry_type, at,
       amount, row_number() OVER running AS sequence,
       sum(CASE entry_type WHEN 'credit' THEN amount ELSE -amount END) OVER running AS balance
  FROM (SELECT n, payer AS person, 'debit' AS entry_type, amount, at FROM movements
         WHERE payer IS NOT NULL
         UNION ALL
        SELECT n, payee, 'credit', amount, at FROM movements) side
WINDOW running AS (PARTITION BY person ORDER BY n);

INSERT INTO transactions_transaction (id, reference_id, type, status, amount, currency, fee,
    refunded_amount, description, metadata, created_at, completed_at, from_user_id, to_user_id)
SELECT id, 'TX-' || upper(left(md5(id::text), 26)), type, 'completed', amount, 'USD', 0, 0, '',
       '{}', at, at, payer.user_id, payee.user_id
  FROM movements
  LEFT JOIN people payer ON payer.n = movements.payer
  LEFT JOIN people payee ON payee.n = movements.payee;

INSERT INTO transactions_transactionledger (id, transaction_id, account, wallet_id, sequence,
    entry_type, amount, currency, balance_after, created_at)
SELECT pg_temp.id(CASE entry_type WHEN 'debit' THEN 5 ELSE 6 END, %(active)s + sides.n),
       pg_temp.id(4, %(active)s + sides.n), 'wallet', wallet_id, sequence, entry_type, amount,
       'USD', balance, at
  FROM sides JOIN people ON people.n = person
 UNION ALL
SELECT pg_temp.id(5, %(active)s + n), id, 'gateway_clearing', NULL, NULL, 'debit', amount, 'USD',
       NULL, at
  FROM movements WHERE type = 'deposit';

INSERT INTO transactions_ledgerseal (wallet_id, sequence, seal)
SELECT wallet_id, sequence, sha256(convert_to(person || ' ' || sequence, 'UTF8'))
  FROM sides JOIN people ON people.n = person;

-- One for each of the first movements: captured by it, or made between the same two and resolved
-- otherwise. A few are active, and the last of those are due.
INSERT INTO transactions_hold (id, status, amount, captured_amount, currency, description,
    metadata, created_at, expires_at, resolved_at, from_user_id, to_user_id, payer_wallet_id,
    payee_wallet_id, transaction_id)
SELECT pg_temp.id(7, made.n), status, amount, CASE status WHEN 'captured' THEN amount ELSE 0 END,
       'USD', '', '{}', at - interval '1 hour',
       CASE WHEN status = 'active' AND made.n <= %(others)s - %(due)s
            THEN now() + interval '7 days' ELSE at + interval '1 hour' END,
       CASE WHEN status <> 'active' THEN at END,
       payer.user_id, payee.user_id, payer.wallet_id, payee.wallet_id,
       CASE status WHEN 'captured' THEN id END
  FROM (SELECT *, CASE WHEN n <= %(captured)s THEN 'captured'
                       WHEN n > %(others)s - %(due)s OR mod(n, 100) = 4 THEN 'active'
                       WHEN mod(n / 8, 2) = 0 THEN 'voided' ELSE 'expired' END AS status
          FROM movements WHERE n BETWEEN 1 AND %(others)s) made
  JOIN people payer ON payer.n = made.payer
  JOIN people payee ON payee.n = made.payee;

INSERT INTO wallet_wallet (id, user_id, currency, balance, held, entry_count, last_entry_at,
    status, created_at, updated_at)
SELECT wallet_id, user_id, 'USD', coalesce(balance, 0), coalesce(held, 0), coalesce(sequence, 0),
       at, CASE WHEN mod(n, 300) = 5 THEN 'frozen' ELSE 'active' END, joined_at, now()
  FROM people
  LEFT JOIN (SELECT DISTINCT ON (person) person, sequence, balance, at
               FROM sides ORDER BY person, sequence DESC) newest ON person = n
  LEFT JOIN (SELECT payer_wallet_id, sum(amount) AS held
               FROM transactions_hold WHERE status = 'active' GROUP BY 1) reserved
    ON payer_wallet_id = wallet_id;

-- Person 1 sent something in each hour that a limit looks back at.
INSERT INTO wallet_debitbucket (wallet_id, hour, total, count)
SELECT wallet_id, date_trunc('hour', now(), 'UTC') - hours * interval '1 hour', 1.00, 1
  FROM people, generate_series(1, 700) hours
 WHERE n = 1 OR n <= %(active)s AND mod(hours, 70) = 0
 UNION ALL
SELECT wallet_id, date_trunc('hour', now(), 'UTC') - interval '800 hours', 1.00, 1
  FROM people WHERE n <= %(due)s;

-- What a person has many of ------------------------------------------------------------------------

-- A quarter is person 1's. The deposit of each of the active people paid the intent numbered alike.
-- The last ones were made just now.
CREATE TEMP TABLE things AS
SELECT made.n, made.n + %(intervals)s - %(others)s AS place, user_id, wallet_id,
       pg_temp.moment(made.n + %(intervals)s - %(others)s) AS at,
       made.n > %(others)s - %(due)s AS is_due
  FROM (SELECT n, CASE WHEN n > %(active)s AND mod(n, 4) = 0 THEN 1
                       ELSE 1 + mod(n - 1, %(active)s) END AS person
          FROM generate_series(1, %(others)s) n) made
  JOIN people ON people.n = person;

INSERT INTO users_session (id, user_id, refresh_jti, created_at, expires_at, revoked_at,
    revoked_reason)
SELECT pg_temp.id(8, place), user_id, md5(n::text), at,
       now() + CASE WHEN is_due THEN interval '-1 hour' ELSE interval '7 days' END,
       CASE WHEN mod(n, 3) = 0 THEN now() - interval '1 day' END,
       CASE WHEN mod(n, 3) = 0 THEN 'logout' ELSE '' END
  FROM things;

INSERT INTO fintech_core_idempotencyrecord (user_id, operation, key, fingerprint, response_status,
    response_body)
SELECT user_id, 'POST /api/v1/transactions/transfer/', 'crowd' || n, md5(n::text), 201, '{}'
  FROM things;

INSERT INTO payments_paymentintent (id, user_id, wallet_id, amount, currency, gateway,
    gateway_reference, client_secret, status, transaction_id, created_at, expires_at, updated_at)
SELECT pg_temp.id(9, place), user_id, wallet_id, 10.00, 'USD', 'sandbox', 'sbx_crowd' || n, '',
       CASE WHEN n <= %(active)s THEN 'succeeded'
            WHEN n > %(others)s - 2 * %(due)s OR mod(n, 100) = 4 THEN 'requires_payment'
            WHEN mod(n / 4, 3) = 0 THEN 'failed' WHEN mod(n / 4, 3) = 1 THEN 'canceled'
            ELSE 'expired' END,
       CASE WHEN n <= %(active)s THEN pg_temp.id(4, n) END,
       at, now() + CASE WHEN is_due THEN interval '-1 hour' ELSE '1 day' END, now()
  FROM things;

-- Where no event came, gateways are asked: those that are due, and a few that staff must look at.
UPDATE payments_paymentintent intent
   SET next_poll_at = CASE WHEN things.n > %(others)s - 3 * %(due)s
                            AND things.n <= %(others)s - 2 * %(due)s THEN now()
                           ELSE now() + interval '1 day' END,
       needs_staff = mod(things.n, 400) = 4,
       late_after = CASE WHEN status = 'succeeded' AND mod(things.n, 100) = 0 THEN 'expired'
                         ELSE '' END
  FROM things WHERE intent.id = pg_temp.id(9, place) AND status <> 'succeeded'
    OR intent.id = pg_temp.id(9, place) AND mod(things.n, 100) = 0;

-- Past the rules: they name any transactions, for nobody looks at what these say.
INSERT INTO payments_payout (id, user_id, wallet_id, amount, currency, gateway, gateway_reference,
    iban, holder, status, transaction_id, created_at, completed_at, updated_at, next_poll_at,
    needs_staff)
SELECT pg_temp.id(13, place), user_id, wallet_id, 10.00, 'USD', 'sandbox', 'sbx_crowd_out' || n,
       %(sealed)s, %(sealed)s, CASE WHEN mod(n, 50) = 4 THEN 'pending' ELSE 'paid' END,
       pg_temp.id(4, n), at, CASE WHEN mod(n, 50) <> 4 THEN at END, at,
       CASE WHEN mod(n, 50) = 4 THEN now() + interval '1 day' END, mod(n, 400) = 4
  FROM things;

INSERT INTO payments_suspendeddeposit (id, intent_id, transaction_id, status, note,
    resolved_by_id, created_at, resolved_at)
SELECT pg_temp.id(12, place), pg_temp.id(9, place), pg_temp.id(4, n),
       CASE WHEN mod(n, 100) = 4 THEN 'open' ELSE 'resolved' END,
       CASE WHEN mod(n, 100) = 4 THEN '' ELSE 'Sent back.' END,
       CASE WHEN mod(n, 100) <> 4 THEN user_id END, at, CASE WHEN mod(n, 100) <> 4 THEN at END
  FROM things WHERE n <= %(some)s;

-- Each about the intent of its number; the due ones about intents that wait for their money. A few
-- name an intent that nobody knows, a few wait for staff. Old payloads are gone, except the due.
INSERT INTO payments_webhookevent (id, gateway, event_id, event_type, gateway_reference, body,
    headers, status, attempts, next_attempt_at, last_error, intent_id, received_at, processed_at,
    payload_deleted_at)
SELECT pg_temp.id(10, place), CASE WHEN n <= %(some)s THEN 'retired' ELSE 'sandbox' END,
       'evt_crowd' || n, 'payment_intent.succeeded', reference,
       CASE WHEN is_kept
            THEN convert_to(replace(%(body)s, 'sbx_unknown', reference), 'UTF8') ELSE '' END,
       jsonb_build_object('webhook-id', 'evt_crowd' || n), status, 1,
       CASE WHEN is_due THEN now() END, '',
       CASE WHEN NOT is_due AND status <> 'ignored' THEN pg_temp.id(9, place) END,
       at,
       CASE WHEN status IN ('processed', 'ignored')
            THEN now() - CASE WHEN is_old THEN interval '100 days' ELSE '1 day' END END,
       CASE WHEN NOT is_kept THEN now() END
  FROM (SELECT *,
               CASE WHEN is_due THEN 'received' WHEN mod(n, 100) = 5 THEN 'ignored'
                    WHEN is_kept AND mod(n, 100) = 3 THEN 'parked' ELSE 'processed' END AS status,
               CASE WHEN is_due THEN 'sbx_crowd' || n - %(due)s
                    WHEN mod(n, 100) = 5 THEN 'sbx_nobody' || n ELSE 'sbx_crowd' || n END
               AS reference
          FROM (SELECT *, n >= %(others)s / 2 AS is_kept,
                       n >= %(others)s / 2 AND n < %(others)s / 2 + %(due)s AS is_old
                  FROM things) aged) event;

INSERT INTO payments_webhookattempt (event_id, number, outcome, error, finished_at)
SELECT pg_temp.id(10, place), 1, 'processed', '', now() FROM things;

-- What the sandbox knows of these intents, and what it still has to send.
INSERT INTO payments_sandboxorder (id, subject, reference, intent_reference, amount, currency,
    status, settled_amount, settled_at, created_at)
SELECT pg_temp.id(30, place), 'payment_intent', 'sbx_crowd' || n, '', 10.00, 'USD',
       CASE WHEN n <= %(active)s THEN 'succeeded' ELSE 'open' END,
       CASE WHEN n <= %(active)s THEN 10.00 END, CASE WHEN n <= %(active)s THEN at END, at
  FROM things;

INSERT INTO payments_sandboxdelivery (id, order_id, event_id, event_type, body, status, attempts,
    next_attempt_at, answer, delivered_at)
SELECT pg_temp.id(31, place), pg_temp.id(30, place), 'evt_crowd' || n, 'payment_intent.succeeded',
       '{}', CASE WHEN is_due THEN 'waiting' ELSE 'delivered' END, 1,
       CASE WHEN is_due THEN now() END, '', CASE WHEN NOT is_due THEN now() END
  FROM things;
-- Of the newest intents; the due ones wait for their gateway, as many were settled yesterday. Their
-- money is somebody's movement.
INSERT INTO payments_depositrefund (id, intent_id, amount, currency, gateway, gateway_reference,
    status, transaction_id, reversal_id, reason, failure_code, requested_by_id, attempts,
    next_attempt_at, created_at, completed_at)
SELECT pg_temp.id(13, place), pg_temp.id(9, place), 1.00, 'USD', 'sandbox',
       CASE WHEN NOT is_due THEN 'sbx_re_crowd' || n END, status,
       pg_temp.id(4, %(active)s + m),
       CASE WHEN status = 'failed' THEN pg_temp.id(4, %(active)s + %(some)s + m) END,
       'Paid twice.', '', user_id, 1, CASE WHEN is_due THEN now() END, at,
       CASE WHEN NOT is_due THEN least(at, date_trunc('day', now(), 'UTC') - interval '1 hour') END
  FROM (SELECT *, n - %(others)s + %(some)s AS m,
               CASE WHEN is_due THEN 'pending' WHEN mod(n, 100) = 5 THEN 'failed'
                    ELSE 'succeeded' END AS status
          FROM things WHERE n > %(others)s - %(some)s) made;

-- A few breaks of each kind are open. The gateway's lines are about them.
INSERT INTO payments_reconciliationrun (id, gateway, day, source, status, lines, matched, breaks,
    found_later, error, started_at, finished_at)
SELECT pg_temp.id(14, place), 'retired', at::date, 'gateway',
       CASE WHEN mod(n, 100) = 3 THEN 'failed' WHEN mod(n, 3) = 0 THEN 'breaks' ELSE 'matched' END,
       1, 1, 0, 0, CASE WHEN mod(n, 100) = 3 THEN 'No answer.' ELSE '' END, at, at
  FROM things WHERE n > %(others)s - %(some)s;

INSERT INTO payments_reconciliationline (gateway, day, subject, reference, amount, currency,
    settled_at)
SELECT CASE WHEN mod(n, 2) = 0 THEN 'sandbox' ELSE 'retired' END, at::date, 'payment_intent',
       'sbx_crowd' || n, 10.00, 'USD', at
  FROM things;

INSERT INTO payments_reconciliationbreak (id, gateway, subject, reference, kind, our_currency,
    their_amount, their_currency, day, first_run_id, last_run_id, status, opened_at, ended_at, note,
    resolved_by_id)
SELECT pg_temp.id(15, place), 'retired', 'payment_intent', 'sbx_crowd' || n,
       CASE mod(n, 50) WHEN 0 THEN 'missing_there' WHEN 1 THEN 'different_amount'
            WHEN 2 THEN 'duplicate_line' WHEN 3 THEN 'not_in_ledger' WHEN 4 THEN 'ledger_only'
            ELSE 'missing_here' END,
       '', 10.00, 'USD', at::date, pg_temp.id(14, place), pg_temp.id(14, place), status, at,
       CASE WHEN status <> 'open' THEN at END, CASE WHEN status = 'resolved' THEN 'Theirs.' ELSE ''
       END, CASE WHEN status = 'resolved' THEN user_id END
  FROM (SELECT *, CASE mod(n, 100) WHEN 7 THEN 'open' WHEN 8 THEN 'found_later' ELSE 'resolved' END
               AS status
          FROM things WHERE n > %(others)s - %(some)s) made;

INSERT INTO fintech_core_ratelimitcounter (key, count, expires_at)
SELECT md5(n::text), 1, now() + CASE WHEN is_due THEN interval '-1 hour' ELSE '1 hour' END
  FROM things WHERE n > %(others)s - %(some)s;

-- An endpoint for each of the people, and one of staff that hears of everybody; the jobs make none of
-- what they listen to. Each of the things was told to somebody; a quarter are person 1's. The due
-- ones go to an endpoint each, and are refused there.
INSERT INTO fintech_core_webhookendpoint (id, user_id, scope, url, description, event_types, secret,
    status, disabled_reason, disabled_at, failures, created_at)
SELECT pg_temp.id(13, n), user_id, 'own', 'https://127.0.0.1:9/hooks', '', ARRAY['kyc.approved'],
       %(secret)s, CASE WHEN is_off THEN 'disabled' ELSE 'active' END,
       CASE WHEN is_off THEN 'failing' ELSE '' END, CASE WHEN is_off THEN now() END, 0,
       pg_temp.moment(n)
  FROM (SELECT *, mod(n, 100) = 99 AS is_off FROM people) made
 UNION ALL
SELECT pg_temp.id(13, %(people)s + 1), user_id, 'everybody', 'https://127.0.0.1:9/all', '',
       ARRAY['kyc.approved'], %(secret)s, 'active', '', NULL, 0, now()
  FROM people WHERE n = 499;

INSERT INTO fintech_core_outgoingevent (id, type, user_id, data, created_at)
SELECT pg_temp.id(14, place), 'transfer.sent', user_id, '{}',
       now() - CASE WHEN n <= %(due)s THEN interval '31 days' ELSE interval '1 day' END
  FROM things;

INSERT INTO fintech_core_webhookdelivery (id, event_id, endpoint_id, status, attempts,
    next_attempt_at, last_error, created_at, finished_at)
SELECT pg_temp.id(15, place), pg_temp.id(14, place),
       pg_temp.id(13, CASE WHEN is_due THEN 100 + mod(n, 40) WHEN mod(n, 4) = 0 THEN 1 ELSE
                      2 + mod(n, %(active)s) END),
       status, 1, CASE WHEN is_due THEN now() WHEN status = 'pending' THEN now() + '1 h' END,
       '', at, CASE WHEN status <> 'pending' THEN at END
  FROM (SELECT *, CASE WHEN is_due OR mod(n, 100) = 4 AND n > %(due)s THEN 'pending'
                       WHEN mod(n, 100) IN (3, 8) THEN 'failed'
                       WHEN mod(n, 100) IN (5, 12) THEN 'abandoned' ELSE 'delivered' END AS status
          FROM things) told;

INSERT INTO fintech_core_deliveryattempt (delivery_id, number, outcome, response_body, error,
    finished_at)
SELECT pg_temp.id(15, place), 1, 'failed', '', 'It answered 500.', now() FROM things;

-- What staff do -----------------------------------------------------------------------------------

INSERT INTO wallet_walletstep (wallet_id, actor_id, from_status, to_status, reason)
SELECT wallet_id, user_id, 'active', 'frozen', 'Look.' FROM people WHERE n <= %(some)s
 UNION ALL
SELECT wallet_id, user_id, 'frozen', 'active', 'Fine.' FROM people WHERE n <= %(some)s;

INSERT INTO wallet_limitoverride (wallet_id, actor_id, reason)
SELECT wallet_id, user_id, 'Agreed.' FROM people WHERE n <= %(some)s;

INSERT INTO transactions_adjustment (id, status, wallet_id, direction, amount, currency, reason,
    proposed_by_id, decided_by_id, rejection_reason, decided_at, created_at)
SELECT pg_temp.id(11, n), CASE WHEN is_open THEN 'proposed' ELSE 'rejected' END, wallet_id,
       'credit', 1.00, 'USD', 'Fee.', user_id, CASE WHEN NOT is_open THEN user_id END,
       CASE WHEN is_open THEN '' ELSE 'No.' END, CASE WHEN NOT is_open THEN now() END,
       pg_temp.moment(n)
  FROM (SELECT *, mod(n, 500) = 5 AS is_open FROM people WHERE n <= %(some)s) made;

INSERT INTO transactions_transferbatch (id, user_id, mode, status, count, succeeded, failed, total,
    currency, created_at)
SELECT pg_temp.id(12, place), user_id, 'independent', 'failed', 2, 0, 2, 0, 'USD', at
  FROM things WHERE n > %(others)s - %(some)s;

INSERT INTO transactions_transferbatchleg (batch_id, index, error_code)
SELECT pg_temp.id(12, place), index, 'insufficient_funds'
  FROM things, generate_series(0, 1) index WHERE n > %(others)s - %(some)s;

INSERT INTO django_admin_log (action_time, user_id, content_type_id, object_id, object_repr,
    action_flag, change_message)
SELECT now(), user_id, (SELECT min(id) FROM django_content_type), user_id::text, 'x', 2, '[]'
  FROM people WHERE n <= %(some)s;
