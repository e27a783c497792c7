// The driver inside Grafana's data source, over HTTP, against a running store. The address comes
// from SYSQUANT_STORE (host:port), the passwords from SYSQUANT_PASSWORD and SYSQUANT_READER.
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

var methods = map[string]clickhouse.CompressionMethod{
	"none":    clickhouse.CompressionNone,
	"lz4":     clickhouse.CompressionLZ4,
	"zstd":    clickhouse.CompressionZSTD,
	"gzip":    clickhouse.CompressionGZIP,
	"deflate": clickhouse.CompressionDeflate,
	"brotli":  clickhouse.CompressionBrotli,
}

func open(t *testing.T, user, password string, method clickhouse.CompressionMethod) driver.Conn {
	t.Helper()
	if os.Getenv("SYSQUANT_STORE") == "" {
		t.Skip("SYSQUANT_STORE names no running store")
	}
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr:        []string{os.Getenv("SYSQUANT_STORE")},
		Protocol:    clickhouse.HTTP,
		Auth:        clickhouse.Auth{Database: os.Getenv("SYSQUANT_DATABASE"), Username: user, Password: password},
		Settings:    clickhouse.Settings{"max_execution_time": 60},
		Compression: &clickhouse.Compression{Method: method, Level: 3},
		DialTimeout: 60 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func writer(t *testing.T, method clickhouse.CompressionMethod) driver.Conn {
	return open(t, "default", os.Getenv("SYSQUANT_PASSWORD"), method)
}

func TestBatchIsReadBackInEveryCompression(t *testing.T) {
	const rows = 20_000
	for name, method := range methods {
		t.Run(name, func(t *testing.T) {
			conn, ctx := writer(t, method), context.Background()
			table := "go_batch_" + name
			must(t, conn.Exec(ctx, "CREATE TABLE "+table+` (n UInt64, ts DateTime64(9, 'UTC'), symbol LowCardinality(String),
				price Float64, note Nullable(String), tags Array(String), sides Map(String, Int32)) ENGINE = MergeTree ORDER BY n`))
			batch, err := conn.PrepareBatch(ctx, "INSERT INTO "+table)
			must(t, err)
			start := time.Date(2025, 5, 19, 0, 0, 0, 1, time.UTC)
			for i := range rows {
				var note *string
				if i%3 == 0 {
					text := fmt.Sprint("note ", i)
					note = &text
				}
				must(t, batch.Append(uint64(i), start.Add(time.Duration(i)), fmt.Sprint("S", i%7), float64(i)/8,
					note, []string{"a", fmt.Sprint(i)}, map[string]int32{"buy": int32(i)}))
			}
			must(t, batch.Send())
			result, err := conn.Query(ctx, "SELECT * FROM "+table+" ORDER BY n")
			must(t, err)
			defer result.Close()
			count := 0
			for result.Next() {
				var (
					n      uint64
					ts     time.Time
					symbol string
					price  float64
					note   *string
					tags   []string
					sides  map[string]int32
				)
				must(t, result.Scan(&n, &ts, &symbol, &price, &note, &tags, &sides))
				if n != uint64(count) || !ts.Equal(start.Add(time.Duration(n))) || symbol != fmt.Sprint("S", n%7) ||
					price != float64(n)/8 || (note == nil) != (n%3 != 0) || tags[1] != fmt.Sprint(n) || sides["buy"] != int32(n) {
					t.Fatalf("row %d came back as %v %v %v %v %v %v %v", count, n, ts, symbol, price, note, tags, sides)
				}
				count++
			}
			must(t, result.Err())
			if count != rows {
				t.Fatalf("%d rows came back, %d were inserted", count, rows)
			}
		})
	}
}

func TestParametersAreBoundByTheServer(t *testing.T) {
	conn := writer(t, clickhouse.CompressionLZ4)
	odd := `it's "quoted"; -- {n:Int32} 日本`
	ctx := clickhouse.Context(context.Background(), clickhouse.WithParameters(clickhouse.Parameters{"text": odd, "n": "7"}))
	var text string
	var n int32
	must(t, conn.QueryRow(ctx, "SELECT {text:String}, {n:Int32}").Scan(&text, &n))
	if text != odd || n != 7 {
		t.Fatalf("came back as %q and %d", text, n)
	}
}

func TestExceptionHasItsCodeAndHttpStatus(t *testing.T) {
	for name, method := range methods {
		t.Run(name, func(t *testing.T) {
			conn := writer(t, method)
			_, err := conn.Query(context.Background(), "SELECT * FROM go_missing")
			var exception *clickhouse.Exception
			var status *clickhouse.HTTPError
			if !errors.As(err, &exception) || exception.Code != 60 || exception.CodeName != "UNKNOWN_TABLE" {
				t.Fatalf("want code 60, got %v", err)
			}
			if !errors.As(err, &status) || status.StatusCode != 404 {
				t.Fatalf("want status 404, got %v", err)
			}
		})
	}
}

func TestExceptionInMidStreamIsNoticed(t *testing.T) {
	for name, method := range methods {
		t.Run(name, func(t *testing.T) {
			conn := writer(t, method)
			result, err := conn.Query(context.Background(),
				"SELECT throwIf(number = 3000000), cityHash64(number) FROM numbers(10000000) SETTINGS max_threads = 1")
			count := 0
			if err == nil {
				defer result.Close()
				for result.Next() {
					count++
				}
				err = result.Err()
			}
			var exception *clickhouse.Exception
			if !errors.As(err, &exception) || exception.Code != 395 {
				t.Fatalf("want code 395 after some rows, got %v after %d", err, count)
			}
			if count == 0 || count >= 10_000_000 {
				t.Fatalf("%d rows came before the exception", count)
			}
		})
	}
}

func TestWrongPasswordIsRefused(t *testing.T) {
	conn := open(t, "default", "wrong", clickhouse.CompressionNone)
	err := conn.Ping(context.Background())
	var exception *clickhouse.Exception
	if !errors.As(err, &exception) || exception.Code != 516 {
		t.Fatalf("want code 516, got %v", err)
	}
}

func TestDashboardReadsAndCannotWrite(t *testing.T) {
	conn, ctx := open(t, "dashboard", os.Getenv("SYSQUANT_READER"), clickhouse.CompressionGZIP), context.Background()
	var one uint8
	must(t, conn.QueryRow(ctx, "SELECT 1").Scan(&one))
	for _, statement := range []string{"CREATE TABLE go_forbidden (n UInt8) ENGINE = Memory", "DROP TABLE go_batch_none"} {
		var exception *clickhouse.Exception
		if err := conn.Exec(ctx, statement); !errors.As(err, &exception) || exception.Code != 164 {
			t.Fatalf("want code 164 for %s, got %v", statement, err)
		}
	}
}

func TestEmptyResultHasNoRows(t *testing.T) {
	result, err := writer(t, clickhouse.CompressionLZ4).Query(context.Background(), "SELECT 1 WHERE 0")
	must(t, err)
	defer result.Close()
	if result.Next() || result.Err() != nil {
		t.Fatalf("want no rows, got one or %v", result.Err())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
